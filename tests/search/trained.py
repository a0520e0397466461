"""A small search with real trials and checkpoints, made in this process without Ray."""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from search.command import run_command
from search.config import SearchConfig, build_config
from search.messages import TrialSpec
from search.samplers import rungs
from search.session import description
from search.study import SearchStudy, create_study
from search.texts import checked_corpus, training_data
from search.training import Training

REPOSITORY = Path(__file__).parent.parent.parent
VALUES: dict[str, Any] = {
    "data": {"corpus": "bundled", "max_tokens": 3000},
    "train": {"batch_size": 8, "num_steps": 10, "max_epochs": 3, "prefix": "the", "num_preds": 9},
    "space": {"hidden_size": {"choices": [8]}},
    "search": {"trials": 2, "pruner": "nop"},
}


def small_config(**search: Any) -> SearchConfig:
    """A config whose trials take a fraction of a second; `search` changes its search section."""
    return build_config({**VALUES, "search": {**VALUES["search"], **search}})


def make_search(root: Path, name: str, config: SearchConfig | None = None) -> Path:
    """Run a search in `root/runs/name`; give its folder."""
    config = config or small_config()
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    study = create_study(folder, config, description(checked_corpus(config)))
    while not study.is_done():
        train_trial(study)
    study.close()
    return folder


def train_trial(study: SearchStudy, most_reports: int = 1000) -> int:
    """Run the next trial as a worker would, one report an epoch; give its number."""
    torch.set_num_threads(1)
    config, proposal = study.config, study.ask()
    spec = TrialSpec(
        number=proposal.number,
        params=proposal.params,
        seed=proposal.seed,
        train=config.train.model_dump(),
        metric=config.search.metric,
        rungs=rungs(config),
        folder=study.trial_folder(proposal.number),
        report_every_s=0,
    )
    training = Training(spec, training_data(config, checked_corpus(config)))
    for _ in range(most_reports):
        if study.report(spec.number, training.advance()):
            break
    return spec.number


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def call(module: ModuleType, *arguments: str | Path) -> Ended:
    """Run a command in this process, which saves the seconds that its imports take."""
    before, sys.argv = sys.argv, [module.__name__, *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            run_command(module.app)
    finally:
        sys.argv = before
    return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def command(script: str, *arguments: str | Path) -> list[str]:
    """A command line of this repository, for `subprocess`."""
    return [sys.executable, str(REPOSITORY / "search" / script), *map(str, arguments)]


def environment() -> dict[str, str]:
    """This process's, with the repository first and no MLflow but the default one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}
