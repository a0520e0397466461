"""What MLflow is told of a trial, in plain values: its tags, its numbers, its texts.

MLflow itself is not named here: `search/lab_runs.py` writes what these functions say.
"""

import getpass
import json
import math
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from search.messages import Row
from search.samplers import seed_for
from search.study import SearchStudy

METRICS = (
    "train_perplexity",
    "val_perplexity",
    "grad_norm",
    "clip_fraction",
    "tokens_per_s",
    "sample_repetition",
    "sample_copied",
)
TEXT_COLUMNS = (
    "epoch",
    "train_perplexity",
    "val_perplexity",
    "sample_repetition",
    "sample_copied",
    "sample_text",
)
TEXTS = "sample_text.json"
MAX_TAG = 5000  # characters; MLflow refuses more than 8000


def trial_tags(study: SearchStudy, trial: FrozenTrial, rows: list[Row]) -> dict[str, str]:
    """All that is said of a trial in words; `sample_text` is the latest."""
    seed = study.config.train.seed
    tags = {
        "search": study.name,
        study.kind: str(trial.number),
        "trial_state": trial.state.name,
        "search_seed": str(seed),
        "trial_seed": str(seed_for("trial", seed, trial.number)),
        "command": f"python search/resume.py --name {shlex.quote(study.name)} "
        f"--trial {trial.number} --from start",
        **origin_tags(study),
        **trial.user_attrs.get("computed", {}),  # `step` and `device`, as the worker found them
    }
    if rows:
        tags["epoch"] = str(rows[-1]["epoch"])
    texts = [row["sample_text"] for row in rows if row.get("sample_text")]
    if texts:
        tags["sample_text"] = texts[-1][:MAX_TAG]
        if trial.state.is_finished():
            tags["mlflow.loggedArtifacts"] = json.dumps([{"path": TEXTS, "type": "table"}])
    if "reason" in trial.user_attrs:
        tags["reason"] = trial.user_attrs["reason"][:MAX_TAG]
    return tags


def origin_tags(study: SearchStudy) -> dict[str, str]:
    """Where numbers come from: code, packages, device, text."""
    attrs = study.attrs
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": "search/run.py",
        "mlflow.source.type": "LOCAL",
        "versions": ", ".join(f"{key} {value}" for key, value in attrs["versions"].items()),
        "corpus_sha256": attrs["corpus"]["sha256"],
    }
    commit = code_version()
    return tags | {"mlflow.source.git.commit": commit} if commit else tags


@cache
def code_version() -> str:
    """The git commit of the project's folder, "" where it is no repository or git is missing."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def trial_metrics(rows: Iterable[Row]) -> Iterator[tuple[str, float, int, int]]:
    """Key, value, time in ms and epoch of everything that is charted.

    What is no finite number is left out: one such value would flatten a whole chart.
    """
    for row in rows:
        for key in METRICS:
            value = row.get(key)
            if value is not None and math.isfinite(value):
                yield key, value, row["time"], row["epoch"]


def text_table(rows: Iterable[Row]) -> str:
    """What the trial wrote epoch by epoch, in the form of an MLflow table (JSON)."""
    written = [row for row in rows if row.get("sample_text")]
    data: list[list[Any]] = [[row.get(column) for column in TEXT_COLUMNS] for row in written]
    return json.dumps({"columns": TEXT_COLUMNS, "data": data})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
