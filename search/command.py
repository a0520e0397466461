"""How the commands of this folder end: what a person gave wrong is one line and exit status 2."""

import sys

import typer

from data.corpus import CorpusError
from search.config import ConfigError

WRONG_INPUT = 2
INTERRUPTED = 130


def run_command(app: typer.Typer) -> None:
    """Run a command line and exit. All errors but a person's own keep their traceback."""
    try:
        sys.exit(app(standalone_mode=False))
    except (ConfigError, CorpusError) as error:
        message = " ".join(str(error).split())
    except typer.TyperException as error:
        message = error.format_message()
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(WRONG_INPUT)
