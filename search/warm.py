"""Warm start: the sampler, and nobody else, sees trials of earlier searches.

They are copied into the search's journal in its first record, as an Optuna study of their own,
`NAME/earlier`: any Optuna tool shows them, they have no part in the search's numbers, counts, best
or pruning, and what becomes of the earlier searches changes nothing.
"""

from collections.abc import Container, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState


class Warmed(BaseSampler):
    """A sampler that takes earlier trials for the study's first ones.

    It is given a view of the study rather than another study, so that what a sampler keeps in the
    study's storage stays there. Raises nothing of its own.
    """

    def __init__(self, sampler: BaseSampler, earlier: Sequence[FrozenTrial]) -> None:
        self.sampler, self.earlier = sampler, earlier

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As the sampler does, earlier trials included."""
        return self.sampler.infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler does, earlier trials included."""
        return self.sampler.sample_relative(self._view(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As the sampler does, earlier trials included."""
        return self.sampler.sample_independent(
            self._view(study), trial, param_name, param_distribution
        )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """As the sampler does."""
        self.sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """As the sampler does."""
        self.sampler.after_trial(study, trial, state, values)

    def _view(self, study: optuna.Study) -> optuna.Study:
        return cast(optuna.Study, _View(study, self.earlier)) if self.earlier else study


class _View:
    """A study whose list of trials begins with earlier ones; everything else is its own.

    Optuna's samplers read trials by `_get_trials` alone, as its Hyperband relies on, too.
    """

    def __init__(self, study: optuna.Study, earlier: Sequence[FrozenTrial]) -> None:
        self._study, self._earlier = study, earlier

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        own = self._study._get_trials(deepcopy, states, use_cache)
        return [t for t in self._earlier if states is None or t.state in states] + own


def store_earlier(study: optuna.Study, earlier: Sequence[FrozenTrial]) -> None:
    """Keep earlier trials beside a study, in its storage."""
    if earlier:
        optuna.create_study(
            storage=study._storage, study_name=_name(study), direction="minimize"
        ).add_trials(earlier)


def load_earlier(study: optuna.Study) -> list[FrozenTrial]:
    """The earlier trials beside a study, numbered up to -1: older than its own, and no others'."""
    if _name(study) not in optuna.get_all_study_names(study._storage):
        return []
    trials = optuna.load_study(study_name=_name(study), storage=study._storage).get_trials()
    for trial in trials:
        trial.number -= len(trials)
    return trials


def _name(study: optuna.Study) -> str:
    return f"{study.study_name}/earlier"
