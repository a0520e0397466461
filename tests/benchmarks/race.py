"""One way to do a piece of work, timed from its start to its exit, in a folder of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.study import open_study, rows_of

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def race(way: str, work: str, seed: int = 0) -> dict[str, Any]:
    """Do work A, B or C by `ours`, `plain` or `stock`; gives wall_s, epochs, best and more."""
    if way == "ours":
        return run_ours("--config", f"{HERE / work}.yaml", "--set", f"train.seed={seed}")
    with TemporaryDirectory() as folder:
        script = f"{HERE / way}.py"
        found, wall_s = run_json([script, "--work", work, "--seed", str(seed)], folder)
    return {"wall_s": wall_s, **found}


def run_ours(*arguments: str) -> dict[str, Any]:
    """`search/run.py --json`, and what its journal says of it.

    first_step_s: from the command to the first trial's first step (and its first validation).
    training_share: train_s / (workers * wall_s).
    """
    with TemporaryDirectory() as folder:
        started = time.time()
        found, wall_s = run_json([f"{ROOT / 'search' / 'run.py'}", "--json", *arguments], folder)
        study = open_study(Path(folder) / "runs" / found["search"])
        rows = [rows_of(trial) for trial in study.trials()]
        study.close()
    first_step_at = min(of_trial[0]["time"] / 1000 - of_trial[0]["train_s"] for of_trial in rows)
    return {
        "wall_s": wall_s,
        "trials": len(rows),
        "epochs": sum(map(len, rows)),
        "best": min(row["val_perplexity"] for of_trial in rows for row in of_trial),
        "first_step_s": first_step_at - started,
        "training_share": found["train_s"] / (found["workers"] * wall_s),
    }


def run_json(command: list[str], folder: str) -> tuple[dict[str, Any], float]:
    """Run a Python script in a folder; gives the JSON of its last line and its wall seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    wall_s = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1]), wall_s
