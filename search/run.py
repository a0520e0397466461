"""Search for how to train the character RNN: python search/run.py --trials 64

Nothing heavy is imported before the config is known to be right: `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from search.command import run_command

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def run(
    trials: Annotated[
        int | None, typer.Option(help="How many trials the search shall have in all.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file. Default: configs/default.yaml.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The search's name; one that exists goes on. Default: date and time."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the latest search.")
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Lay a value over the config."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Where runs/, mlflow.db and mlruns/ go. Default: the current folder."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; all else goes to stderr.")
    ] = False,
) -> None:
    """Search for the best hidden size, learning rate, clipping threshold and sampling.

    Exit status: 0 when the search has its trials, 1 when none succeeded, 2 for wrong input, 130
    after Ctrl-C.
    """
    from search.session import Options, run_session

    settings = list(setting or [])
    if trials is not None:
        settings.append(f"search.trials={trials}")
    root = (root or Path.cwd()).absolute()
    options = Options(root, config, name, resume, settings, as_json)
    raise typer.Exit(run_session(options))


if __name__ == "__main__":
    run_command(app)
