"""A small search with real trials and checkpoints, made in this process without Ray."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from optuna.trial import TrialState

from search.config import SearchConfig, build_config
from search.messages import TrialSpec
from search.samplers import rungs
from search.session import checked_corpus, description, training_data
from search.study import SearchStudy, create_study
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


def command(script: str, *arguments: str | Path) -> list[str]:
    """A command line of this repository, for `subprocess`."""
    return [sys.executable, str(REPOSITORY / "search" / script), *map(str, arguments)]


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(script, *arguments), capture_output=True, text=True, env=environment(), timeout=120
    )


def environment() -> dict[str, str]:
    """This process's, with the repository first and no MLflow but the default one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}


def ended(study: SearchStudy) -> list[int]:
    """The numbers of the complete trials."""
    return [trial.number for trial in study.trials(TrialState.COMPLETE)]
