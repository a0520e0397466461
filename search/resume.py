"""Train a search's best trial on: python search/resume.py --epochs 32

The same command again goes on with what was interrupted.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from search.command import run_command
from search.config import ConfigError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def resume(
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="How many more epochs. Default: as many as a trial has."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The search's name. Default: the latest.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="The trial. Default: the best.")] = None,
    run_id: Annotated[
        str | None,
        typer.Option(help="The trial by its MLflow run, which may be one trained on already."),
    ] = None,
    which: Annotated[
        Literal["best", "latest", "start"],
        typer.Option("--from", help="The checkpoint to go on from; start: the whole trial again."),
    ] = "best",
    lr: Annotated[float | None, typer.Option(help="Another learning rate.")] = None,
    clip_threshold: Annotated[
        float | None, typer.Option(help="Another clipping threshold.")
    ] = None,
    sampling: Annotated[
        Literal["random", "sequential"] | None, typer.Option(help="The other sampling.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Where runs/, mlflow.db and mlruns/ are. Default: the current folder."),
    ] = None,
) -> None:
    """Train a trial on from a checkpoint, with its data position and random state.

    Exit status: 0 when all epochs are done, 1 when training diverged, 2 for wrong input, 130
    after Ctrl-C, 143 after SIGTERM.
    """
    for key, value in (("lr", lr), ("clip_threshold", clip_threshold)):
        if value is not None and not 0 < value < float("inf"):
            option = f"--{key.replace('_', '-')}"
            raise ConfigError(f"`{key}` must be above 0 and finite, but got {value} ({option})")
    from search.onward import train_on
    from search.wording import Options

    root = (root or Path.cwd()).absolute()
    options = Options(root, name, trial, run_id, which, epochs, lr, clip_threshold, sampling)
    raise typer.Exit(train_on(options))


if __name__ == "__main__":
    run_command(app)
