"""Where training a trial on is kept: an Optuna study of its own in the search's journal.

`NAME/continuations` counts nowhere in the search: its trials, best and proposals stay as they are.
In MLflow a continuation is one more child of the search's run.
"""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from search.messages import Row, TrialSpec
from search.study import SearchStudy


@dataclass(frozen=True)
class Request:
    """What a person asked for; the same request again means the same continuation.

    source: the label of what is trained on. which: its `best` or `latest` checkpoint, or `start`
    for none. epochs: how many more. The rest replaces the source's parameters, where given.
    """

    source: str
    which: str
    epochs: int
    lr: float | None = None
    clip_threshold: float | None = None
    sampling: str | None = None

    def arguments(self) -> list[str]:
        """The command line's, but for what names the source."""
        given = {
            "--epochs": self.epochs,
            "--from": self.which,
            "--lr": self.lr,
            "--clip-threshold": self.clip_threshold,
            "--sampling": self.sampling,
        }
        return [str(x) for key, value in given.items() if value is not None for x in (key, value)]

    def params(self, before: dict[str, Any]) -> dict[str, Any]:
        """The parameters to train on with, from those before."""
        given = {name: getattr(self, name) for name in ("lr", "clip_threshold", "sampling")}
        return before | {name: value for name, value in given.items() if value is not None}


class Continuations(SearchStudy):
    """The continuations of a search's trials, and of each other.

    What is said of it as a whole (name, attributes, best, whether it is done) is the search's.
    """

    kind = "continuation"

    def __init__(self, study: optuna.Study, search: SearchStudy) -> None:
        super().__init__(study, search.journal, search.config)
        self.search = search
        study.pruner = optuna.pruners.NopPruner()

    @property
    def name(self) -> str:
        """The search's name."""
        return self.search.name

    @property
    def attrs(self) -> dict[str, Any]:
        """The search's attributes."""
        return self.search.attrs

    def set_attr(self, key: str, value: Any) -> None:
        """Keep something with the search."""
        self.search.set_attr(key, value)

    def best(self) -> FrozenTrial | None:
        """The search's best trial."""
        return self.search.best()

    def is_done(self) -> bool:
        """Whether the search is."""
        return self.search.is_done()

    def label(self, number: int) -> str:
        """As `trial-012-resumed-001`: a name beside the trial's that everything goes back to."""
        return str(self.trial(number).user_attrs["label"])

    def tags(self, trial: FrozenTrial, run_ids: Mapping[str, str]) -> dict[str, str]:
        """What it continues: the MLflow run, where there is one, and in words; how to again."""
        attrs = trial.user_attrs
        request, root = Request(**attrs["request"]), attrs["root"]
        run_id = run_ids.get(request.source)
        by_run = run_id is not None and request.source != self.search.label(root)
        which = ["--run-id", str(run_id)] if by_run else ["--trial", str(root)]
        again = ["python", "search/resume.py", "--name", self.name, *which, *request.arguments()]
        run = f"run {run_id}, " if run_id else ""
        return {
            "continues": f"{run}{request.source}, epoch {attrs['first_epoch'] - 1}",
            "trial_seed": str(attrs["seed"]),
            "command": shlex.join(again),
        }

    def unfinished(self, request: Request) -> int | None:
        """The continuation that this request began and that waits to go on, if any."""
        for trial in self.trials(TrialState.WAITING):
            if trial.user_attrs["request"] == asdict(request):
                return trial.number
        return None

    def add(
        self, request: Request, root: int, params: dict[str, Any], seed: int, before: Row | None
    ) -> int:
        """A new continuation, yet to be started; give its number.

        root: the search's trial that it goes back to. before: what its last epoch gave, if any.
        """
        epoch = before["epoch"] if before else 0
        siblings = [trial for trial in self.trials() if trial.user_attrs["root"] == root]
        attrs = {
            "label": f"{self.search.label(root)}-resumed-{len(siblings) + 1:03d}",
            "request": asdict(request),
            "root": root,
            "seed": seed,
            "before": before,
            "first_epoch": epoch + 1,
            "last_epoch": epoch + request.epochs,
        }
        fixed = {
            "hidden_size": IntDistribution(params["hidden_size"], params["hidden_size"]),
            "lr": FloatDistribution(params["lr"], params["lr"]),
            "clip_threshold": FloatDistribution(
                params["clip_threshold"], params["clip_threshold"]
            ),
            "sampling": CategoricalDistribution(["random", "sequential"]),
        }
        trial = optuna.create_trial(
            state=TrialState.WAITING, params=params, distributions=fixed, user_attrs=attrs
        )
        with self.journal.group():
            self.study.add_trial(trial)
        return len(self.trials()) - 1

    def start(self, number: int) -> TrialSpec:
        """Set one that waits running, and say what is to be done for it."""
        trial = self.trial(number)
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        self._running[number] = Trial(self.study, trial._trial_id)
        last_epoch = trial.user_attrs["last_epoch"]
        return TrialSpec(
            number=trial.user_attrs["root"],
            params=trial.params,
            seed=trial.user_attrs["seed"],
            train={**self.config.train.model_dump(), "max_epochs": last_epoch},
            metric=self.config.search.metric,
            rungs=frozenset(),
            folder=self.trial_folder(number),
            num_threads=max(1, int(self.config.search.cpus_per_trial)),
        )


def continuations_of(search: SearchStudy, create: bool = False) -> Continuations | None:
    """A search's continuations; None where there never were any, unless they are to begin."""
    storage, name = search.study._storage, f"{search.study.study_name}/continuations"
    if name in optuna.get_all_study_names(storage):
        return Continuations(optuna.load_study(study_name=name, storage=storage), search)
    if not create:
        return None
    study = optuna.create_study(storage=storage, study_name=name, direction="minimize")
    return Continuations(study, search)
