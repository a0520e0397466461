"""What of a search can be drawn, for the page and for the stills: which trials, and why not."""

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.study import UNFINISHED, SearchStudy, rows_of, value_of

TITLES = {
    "history": ("How the search went", "Each trial at its lowest value; the line: best so far."),
    "curves": (
        "Learning curves",
        "A pruned one ends where it was stopped; leaps off the scale are cut.",
    ),
    "importance": ("What mattered", "Each parameter's share in how trials differ (PED-ANOVA)."),
    "contour": ("Learning rate by clipping", "The value over both; the darker, the better."),
    "slice": ("One parameter at a time", "Every trial's lowest value by each of its parameters."),
    "parallel": ("All parameters at once", "A line is a trial, drawn over if it is better."),
    "sampling": (
        "Random against sequential",
        "Trials with equal settings but for it, at the last epoch that both reached.",
    ),
}
Item = TypeVar("Item")
NEEDED = 4  # trials; what fewer say of a parameter is chance


@dataclass(frozen=True)
class Pair:
    """Two trials that differ in sampling alone, at the last epoch that both reached."""

    params: dict[str, Any]
    epoch: int
    random: float
    sequential: float


class Scene:
    """A search as it stands now, sorted out for drawing.

    trials: those that reported something. judged: see `as_complete`. left_out: the pictures that
    cannot be drawn, each with the reason.
    """

    def __init__(self, study: SearchStudy) -> None:
        self.metric = study.config.search.metric
        self.max_epochs = study.config.train.max_epochs
        self.best = study.best()
        everyone = study.trials()
        self.trials = [trial for trial in everyone if value_of(trial) is not None]
        self.rows = {trial.number: rows_of(trial) for trial in self.trials}
        self.judged = as_complete(everyone)
        self.pairs = self._pairs()
        self.left_out = self._left_out()

    def judged_trials(self) -> list[FrozenTrial]:
        """The trials of `judged` that have a value, in the order of their numbers."""
        return self.judged.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _pairs(self) -> list[Pair]:
        groups: dict[Any, dict[str, FrozenTrial]] = defaultdict(dict)
        for trial in self.trials:
            params = dict(trial.params)
            sampling = params.pop("sampling")
            groups[tuple(params.items())].setdefault(sampling, trial)
        pairs = []
        for params, sides in groups.items():
            if len(sides) == 2:
                rows = {side: self.rows[trial.number] for side, trial in sides.items()}
                both = zip(rows["random"], rows["sequential"], strict=False)
                random, sequential = list(both)[-1]
                values = random[self.metric], sequential[self.metric]
                pairs.append(Pair(dict(params), random["epoch"], *values))
        return pairs

    def _left_out(self) -> dict[str, str]:
        if not self.trials:
            return dict.fromkeys(TITLES, "no trial has reported yet")
        judged = self.judged_trials()
        found = {}
        if not self.pairs:
            found["sampling"] = "no two trials have equal settings and different sampling"
        if len(judged) < NEEDED:
            few = f"{len(judged)} of the {NEEDED} trials that this takes have a value"
            return {**found, **dict.fromkeys(("importance", "contour", "slice", "parallel"), few)}
        for name in ("lr", "clip_threshold"):
            if len({trial.params[name] for trial in judged}) < 2:
                found["contour"] = f"{name} is the same in all trials"
        if len({trial.value for trial in judged}) < 2:
            found["importance"] = "all trials have the same value"
        elif all(dist.single() for dist in judged[0].distributions.values()):
            found["importance"] = "no parameter varies"
        return found


def as_complete(trials: list[FrozenTrial]) -> optuna.Study:
    """A study in memory where every trial with a value counts as complete at its lowest.

    Optuna's plots and its importance look at complete trials only, which pruning leaves few of.
    Failed trials and those without a value keep their place, so that numbers stay.
    """
    judged = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    for trial in trials:
        value = value_of(trial)
        if value is None or trial.state == TrialState.FAIL:
            judged.add_trial(create_trial(state=TrialState.FAIL))
        else:
            judged.add_trial(
                create_trial(value=value, params=trial.params, distributions=trial.distributions)
            )
    return judged


def state_of(trial: FrozenTrial) -> str:
    """COMPLETE, PRUNED, FAIL or, for all that may go on, RUNNING."""
    return "RUNNING" if trial.state in UNFINISHED else trial.state.name


def thinned(items: list[Item], num_items: int) -> list[Item]:
    """At most `num_items` (but at least one), evenly taken, the last among them."""
    stride = -(-len(items) // max(1, num_items))
    return list(itertools.islice(reversed(items), 0, None, stride or None))[::-1]
