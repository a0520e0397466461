"""What is said before and after a trial is trained on, and the commands to go on from there."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from model.checkpoint import checkpoint_path
from search.continuations import Continuations, Request
from search.messages import Row
from search.pick import read_checkpoint
from search.study import rows_of
from search.tracking import Tracker
from search.view import printable


@dataclass(frozen=True)
class Options:
    """What the command line said; see `python search/resume.py --help`."""

    root: Path
    name: str | None
    trial: int | None
    run_id: str | None
    which: str
    epochs: int | None
    lr: float | None = None
    clip_threshold: float | None = None
    sampling: str | None = None


def greeting(continuations: Continuations, number: int) -> Iterator[str]:
    """What is about to be done, and what there is before it."""
    trial, metric = continuations.trial(number), continuations.config.search.metric
    attrs = trial.user_attrs
    params = ", ".join(f"{key}={value}" for key, value in trial.params.items())
    yield (
        f"search {continuations.name}: {attrs['request']['source']} goes on as {attrs['label']}, "
        f"epochs {attrs['first_epoch']} to {attrs['last_epoch']}, {params}"
    )
    if attrs["before"]:
        yield f"before: {describe(attrs['before'], metric)}"


def ending(
    continuations: Continuations, number: int, options: Options, tracker: Tracker
) -> Iterator[str]:
    """What there is after it, where it lies, and how to go on."""
    trial, metric = continuations.trial(number), continuations.config.search.metric
    attrs, rows = trial.user_attrs, rows_of(trial)
    if trial.state == TrialState.FAIL:
        yield f"failed: {attrs['reason']}"
    if rows:
        yield f"after: {describe(rows[-1], metric)}"
    if rows or attrs["before"]:
        best, notices = read_checkpoint(continuations, trial, "best")
        yield from notices
        yield f"best: epoch {best.epoch}, {metric} {best.state['row'][metric]:.4f}"
        path = checkpoint_path(continuations.trial_folder(number), best.epoch)
        yield f"  checkpoint: {path.with_suffix('.safetensors')}"
    command = ["python", "search/resume.py", "--name", continuations.name]
    root = [] if options.root == Path.cwd() else ["--root", str(options.root)]
    if trial.state == TrialState.WAITING:
        which = ["--run-id", options.run_id] if options.run_id else ["--trial", str(attrs["root"])]
        request = Request(**attrs["request"])
        yield f"go on: {shlex.join([*command, *which, *request.arguments(), *root])}"
    elif trial.state == TrialState.COMPLETE and (run_id := tracker.run_id(number)):
        more = ["--run-id", run_id]
        yield f"train it on further: {shlex.join([*command, *more, *root])}"
    yield f"look: {tracker.ui_command()}"


def describe(row: Row, metric: str) -> str:
    """An epoch's perplexity and text, on two lines."""
    text = printable(row["sample_text"])
    return f"epoch {row['epoch']}, {metric} {row[metric]:.4f}\n  text: {text}"
