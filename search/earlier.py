"""Which trials of earlier searches a new one may learn from: those whose numbers mean the same."""

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.config import PARAMS, ConfigError, SearchConfig, Space
from search.samplers import distributions
from search.study import SearchStudy, open_study


def earlier_trials(
    runs: Path, config: SearchConfig, sha256: str
) -> tuple[list[FrozenTrial], dict[str, Any]]:
    """The finished trials of the searches that `search.warm_start` names, and counts by name.

    sha256: of the new search's text. Trials outside the new search's space are left out, since
    its sampler cannot place them. Raises ConfigError for a search that is not there, that ran on
    another text or metric, or that has no trial inside the space.
    """
    taken: list[FrozenTrial] = []
    counts = {}
    for name in dict.fromkeys(config.search.warm_start):
        study = open_study(runs / name, read_only=True)
        finished = study.trials(TrialState.COMPLETE, TrialState.PRUNED)
        study.close()
        _check_comparable(study, config, sha256)
        fitting = [trial for trial in finished if _outside(trial, config.space) is None]
        if not fitting:
            raise ConfigError(_nothing_from(study, finished, config.space))
        taken += [_copy(study, trial, config.space) for trial in fitting]
        counts[name] = {"taken": len(fitting), "left_out": len(finished) - len(fitting)}
    return taken, counts


def _check_comparable(study: SearchStudy, config: SearchConfig, sha256: str) -> None:
    theirs = study.attrs["corpus"]["sha256"]
    if theirs != sha256:
        raise ConfigError(
            f"search {study.name!r} ran on another text, SHA-256 {theirs}, but this one is on "
            f"{sha256}; its perplexities do not compare (search.warm_start)"
        )
    metric = study.config.search.metric
    if metric != config.search.metric:
        raise ConfigError(
            f"search {study.name!r} went by {metric}, but this one goes by "
            f"{config.search.metric} (search.warm_start)"
        )


def _outside(trial: FrozenTrial, space: Space) -> str | None:
    """The first of a trial's parameters that lies outside the space."""
    return next((key for key in PARAMS if not getattr(space, key).holds(trial.params[key])), None)


def _nothing_from(study: SearchStudy, finished: list[FrozenTrial], space: Space) -> str:
    if not finished:
        return f"search {study.name!r} has no finished trial to learn from (search.warm_start)"
    key = _outside(finished[0], space)
    return (
        f"no trial of search {study.name!r} lies in this one's space: space.{key} is "
        f"{getattr(space, str(key))}, but was {getattr(study.config.space, str(key))} "
        f"(search.warm_start)"
    )


def _copy(study: SearchStudy, trial: FrozenTrial, space: Space) -> FrozenTrial:
    """What a sampler asks of a trial, in the new space's terms, and where it came from."""
    return optuna.create_trial(
        state=trial.state,
        value=trial.value,
        params=trial.params,
        distributions=distributions(space),
        intermediate_values=trial.intermediate_values,
        user_attrs={"search": study.name, "trial": trial.number},
    )
