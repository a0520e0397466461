"""Searches without Ray for the tests of what MLflow shows, and MLflow read back."""

import functools
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from search.config import build_config
from search.lab_view import default_uri
from search.messages import Report, Row
from search.study import SearchStudy, create_study
from search.tracking import Tracker

ATTRS = {
    "search_id": "5ea4c4",
    "corpus": {"name": "bundled", "sha256": "ab" * 32, "tokens": 24000, "vocab": 28},
    "command": "python search/run.py --trials 4",
    "versions": {"python": "3.11", "torch": "2.13.0"},
}


def new_study(root: Path, *settings: str) -> SearchStudy:
    """A search of 4 trials of at most 8 epochs in `root/runs/s`, nothing run yet."""
    folder = root / "runs" / "s"
    folder.mkdir(parents=True)
    values = {"train": {"max_epochs": 8}, "search": {"trials": 4, "pruner": "nop"}}
    return create_study(folder, build_config(values, settings), ATTRS)


def row(epoch: int, value: float = 9.0, text: str = "time traveller") -> Row:
    """What a worker reports of one epoch; later epochs are better."""
    return {
        "epoch": epoch,
        "train_perplexity": value + 1 - epoch / 10,
        "val_perplexity": value - epoch / 10,
        "grad_norm": 1.0,
        "clip_fraction": 0.5,
        "tokens_per_s": 1e5,
        "train_s": 0.1,
        "sample_text": f"{text} {epoch}",
        "sample_repetition": 0.25,
        "sample_copied": 0.5,
        "time": 1_700_000_000_000 + epoch,
    }


def rows(first: int, last: int, value: float = 9.0) -> list[Row]:
    """Epochs first to last, both included."""
    return [row(epoch, value) for epoch in range(first, last + 1)]


def run_trial(study: SearchStudy, value: float = 9.0) -> int:
    """Ask for a trial and complete it; gives its number."""
    number = study.ask().number
    study.report(number, Report(rows(1, 8, value), done=True))
    return number


@functools.cache
def _empty_store() -> bytes:
    """A database as MLflow makes it, which takes it 2 s of CPU: once for all tests."""
    folder = Path(tempfile.mkdtemp())
    MlflowClient(tracking_uri=default_uri(folder)).search_experiments()
    content = (folder / "mlflow.db").read_bytes()
    shutil.rmtree(folder)
    return content


def new_store(root: Path) -> MlflowClient:
    """The default store of a root folder, empty."""
    (root / "mlflow.db").write_bytes(_empty_store())
    return MlflowClient(tracking_uri=default_uri(root))


def bring(study: SearchStudy, root: Path, **kwargs: Any) -> Tracker:
    """One session's tracker from start to close, all taken."""
    tracker = Tracker(study, root, say=lambda line: None, **kwargs)
    tracker.start()
    brought = tracker.close(60)
    tracker.finish(60)
    assert brought and tracker.error is None, tracker.error
    return tracker


def parents(client: MlflowClient) -> list[Run]:
    """The runs of searches."""
    return [run for run in _runs(client) if "mlflow.parentRunId" not in run.data.tags]


def children(client: MlflowClient) -> list[Run]:
    """The runs of trials, by their numbers."""
    found = [run for run in _runs(client) if "mlflow.parentRunId" in run.data.tags]
    return sorted(found, key=lambda run: int(run.data.tags["trial"]))


def steps(client: MlflowClient, run: Run, key: str = "val_perplexity") -> list[int]:
    """The epochs that the chart of a run has, each as often as it is stored."""
    return [metric.step for metric in client.get_metric_history(run.info.run_id, key)]


def wait_for(claim: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait until something holds."""
    until = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.05)


def _runs(client: MlflowClient) -> list[Run]:
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(experiments))
