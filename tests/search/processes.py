"""Searches as a person starts them: real processes of `search/run.py`, and what they left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from optuna.trial import FrozenTrial

from search.study import open_study, rows_of

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "configs" / "smoke.yaml"
# What differs between two runs of the same trial: the clock and how fast it went.
CLOCKS = ("time", "train_s", "tokens_per_s")


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a search in its own folder and session; `--json` on stdout."""
    command = [sys.executable, str(ROOT / "search" / "run.py"), "--json", "--root", str(root)]
    return subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 300) -> dict[str, Any]:
    """Wait for a search that succeeds and give what it printed."""
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    finally:
        process.kill()  # nothing where it has ended
    assert process.returncode == 0, stderr
    summary: dict[str, Any] = json.loads(stdout)
    return summary


def worker_ids(driver_id: int) -> list[int]:
    """The process ids of a driver's Ray workers that run trials."""
    parents: dict[int, int] = {}
    workers = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if (folder / "cmdline").read_bytes().startswith(b"ray::ResourceTrainable"):
                workers.append(int(folder.name))
        except (OSError, ValueError):  # it has ended meanwhile
            continue
    return [worker for worker in workers if driver_id in _ancestors(worker, parents)]


def _ancestors(process_id: int, parents: dict[int, int]) -> set[int]:
    found = set()
    while process_id in parents and process_id not in found:
        found.add(process_id)
        process_id = parents[process_id]
    return found


def kill(process_id: int) -> bool:
    """SIGKILL; False where the process is gone already."""
    try:
        os.kill(process_id, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_for(process: subprocess.Popen[str], text: str, path: Path) -> None:
    """Wait until a file holds a text, as long as the process lives."""
    while process.poll() is None:
        if path.is_file() and text in path.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"{text!r} never came to {path}: {process.communicate()[1]}")


def trials(folder: Path) -> list[FrozenTrial]:
    """All trials of a search at rest."""
    study = open_study(folder)
    try:
        return study.trials()
    finally:
        study.close()


def history(folder: Path) -> list[dict[str, Any]]:
    """What a search proposed, saw and decided, without its clocks."""
    return [
        {
            "params": trial.params,
            "state": trial.state.name,
            "values": trial.values,
            "reported": trial.intermediate_values,
            "rows": [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows_of(trial)],
        }
        for trial in trials(folder)
    ]


def weights(folder: Path) -> dict[str, bytes]:
    """Every checkpoint's tensors, byte for byte, by their path in the search's folder."""
    paths = (folder / "checkpoints").rglob("*.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def shown(root: Path, metric: str = "val_perplexity") -> dict[str, Any]:
    """What MLflow's store has: by run name, status, state and the metric's (step, value) list."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("rnn-search")
    assert experiment is not None
    return {
        run.info.run_name: (
            run.info.status,
            run.data.tags.get("trial_state"),
            [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)],
        )
        for run in client.search_runs([experiment.experiment_id])
    }
