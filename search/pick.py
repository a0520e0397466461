"""Which trial a person means, by name, number or MLflow run, and its checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from model.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoint_path,
    load_checkpoint,
    whole_checkpoints,
)
from search.config import ConfigError
from search.continuations import continuations_of
from search.folders import search_folder
from search.lab_runs import find_trial
from search.lab_view import tracking_uri
from search.study import JOURNAL, SearchStudy, open_study


@dataclass(frozen=True)
class Target:
    """A trial of a search: the best (number None), one by number, or a continuation of one."""

    folder: Path
    number: int | None
    kind: str = SearchStudy.kind


def find_target(root: Path, name: str | None, number: int | None, run_id: str | None) -> Target:
    """The trial meant by `--name` (None: the latest search), and `--trial` or `--run-id`.

    Raises ConfigError where there is no such search, or MLflow knows no such run.
    """
    if number is not None and run_id is not None:
        raise ConfigError("`--trial` or `--run-id` must be given, but got both; leave one out")
    folder = _existing(root, name)
    if run_id is None:
        return Target(folder, number)
    study = open_study(folder, read_only=True)
    study.close()
    uri = tracking_uri(study.config.tracking.uri, root)
    search, kind, number = find_trial(uri, run_id)
    if name not in (None, search):
        raise ConfigError(f"run {run_id} is of search {search!r}, but got --name {name}")
    return Target(_existing(root, search), number, kind)


def pick_trial(target: Target, search: SearchStudy) -> tuple[SearchStudy, FrozenTrial]:
    """The target in its opened search: the study that holds it, and the trial.

    Raises ConfigError where there is none yet, or none of that number.
    """
    if target.number is None:
        best = search.best()
        if best is None:
            raise ConfigError(
                f"search {search.name!r} has no trial to go on from yet; "
                f"go on with it: python search/run.py --name {search.name}"
            )
        return search, best
    owner = search if target.kind == search.kind else continuations_of(search)
    trials = owner.trials() if owner else []
    if owner is None or not 0 <= target.number < len(trials):
        raise ConfigError(
            f"search {search.name!r} must have the {target.kind} that is asked for, but got "
            f"{target.number} and it has {len(trials)}, numbered from 0"
        )
    return owner, trials[target.number]


def read_checkpoint(
    study: SearchStudy, trial: FrozenTrial, which: str
) -> tuple[Checkpoint, list[str]]:
    """A trial's `best` or `latest` checkpoint, and a line for each that could not be used.

    What the folder holds decides: a killed trial's is ahead of its study. Raises ConfigError
    where there is none, or the best is not whole.
    """
    folder, label = study.trial_folder(trial.number), study.label(trial.number)
    notices = []
    for checkpoint in whole_checkpoints(folder):
        if isinstance(checkpoint, CheckpointError):
            notices.append(f"{label}: {checkpoint}")
            continue
        best_epoch = checkpoint.state["best"]["epoch"]
        if which == "latest" or checkpoint.epoch == best_epoch:
            return checkpoint, notices
        try:
            return load_checkpoint(checkpoint_path(folder, best_epoch)), notices
        except CheckpointError as error:
            raise ConfigError(f"{label}: {error}; take the last one: --from latest") from error
    damaged = f"; {notices[0]}" if notices else ""
    raise ConfigError(
        f"{label} of search {study.name!r} ({trial.state.name}) has no checkpoint{damaged}; "
        f"leave --trial out for the best one (the other pruned trials' are removed)"
    )


def _existing(root: Path, name: str | None) -> Path:
    folder = search_folder(root, name, resume=True)
    if not (folder / JOURNAL).is_file():
        raise ConfigError(
            f"there is no search {folder.name!r} in {folder.parent}; "
            f"start it: python search/run.py --name {folder.name}"
        )
    return folder
