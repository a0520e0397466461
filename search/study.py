"""The single source of truth: an Optuna study that knows all of a search before anything acts.

A trial's parameters, every epoch it reported, its state and the checkpoint it can go on from are
in the study's journal first; Ray executes and MLflow shows, and both can be rebuilt from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from search.config import ConfigError, SearchConfig, build_config
from search.journal import Journal
from search.messages import Report, Row
from search.samplers import distributions, make_pruner, make_sampler, seed_for
from search.warm import Warmed, load_earlier, store_earlier

JOURNAL = "study.journal"
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its number, parameters and seed."""

    number: int
    params: dict[str, Any]
    seed: int


class SearchStudy:
    """Optuna's study in a search's folder, in the words of a search.

    Made by `create` or `open_study`; the caller holds the folder's lock. Safe to use from several
    threads. Trials are known by number. earlier: trials of other searches, for the sampler alone.
    """

    kind = "trial"  # what one is called, and the MLflow tag that holds its number

    def __init__(
        self,
        study: optuna.Study,
        journal: Journal,
        config: SearchConfig,
        earlier: Sequence[FrozenTrial] = (),
    ) -> None:
        self.study, self.journal, self.config = study, journal, config
        self.earlier = earlier
        self.study.pruner = make_pruner(config)
        self._distributions = distributions(config.space)
        self._running: dict[int, Trial] = {}

    @property
    def name(self) -> str:
        """The search's name."""
        return self.study.study_name

    @property
    def attrs(self) -> dict[str, Any]:
        """What is kept with the search as a whole: corpus, versions, its MLflow run."""
        return self.study.user_attrs

    def set_attr(self, key: str, value: Any) -> None:
        """Keep something with the search; nothing is written where it is there already."""
        if self.attrs.get(key) != value:
            self.study.set_user_attr(key, value)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials in these states (none given: all), in the order of their numbers."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def trial(self, number: int) -> FrozenTrial:
        """One trial as it stands in the study."""
        return self.study.get_trials(deepcopy=False)[number]

    def ask(self) -> Proposal:
        """The next trial: one that waits to go on, else a new one.

        What `search.enqueue` leaves open of a new one comes from a sampler of its own.
        """
        waiting = self.trials(TrialState.WAITING)
        number = waiting[0].number if waiting else len(self.trials())
        enqueued = self.config.search.enqueue
        with self.journal.group():
            self.study.sampler = Warmed(make_sampler(self.config, number), self.earlier)
            if not waiting and number < len(enqueued):
                self.study.enqueue_trial(enqueued[number].params)
            trial = self.study.ask(self._distributions)
        self._running[number] = trial
        return Proposal(number, trial.params, seed_for("trial", self.config.train.seed, number))

    def report(self, number: int, report: Report) -> bool:
        """Take what a worker tells of a trial, and say whether the trial has ended with it.

        Epochs that are known already are passed over (a resumed trial repeats some), as are those
        after the one that the pruner stops it at. Values, verdict and end are one record.
        """
        trial = self._running[number]
        known = self.trial(number)
        last = known.last_step or 0
        best = min(known.intermediate_values.values(), default=float("inf"))
        taken: list[Row] = []
        pruned = False
        with self.journal.group():
            for row in report.rows:
                if row["epoch"] <= last:
                    continue
                taken.append(row)
                best = min(best, row[self.config.search.metric])
                trial.report(best, row["epoch"])
                # The last epoch is not put to the pruner: nothing is left to be saved by it.
                if row["epoch"] < self.config.train.max_epochs and trial.should_prune():
                    pruned = True
                    break
            if taken:
                trial.set_user_attr(f"epochs_{taken[0]['epoch']:05d}", taken)
            if report.computed and known.user_attrs.get("computed") != report.computed:
                trial.set_user_attr("computed", report.computed)
            if report.checkpoints:
                trial.set_user_attr("checkpoints", report.checkpoints)
            if pruned:
                self.finish(number, TrialState.PRUNED)
            elif report.diverged is not None:
                self.finish(number, TrialState.FAIL, report.diverged)
            elif report.done:
                self.finish(number, TrialState.COMPLETE)
        return pruned or report.done

    def finish(self, number: int, state: TrialState, reason: str | None = None) -> None:
        """End a trial as COMPLETE with its best value, PRUNED or FAIL; `reason` says why."""
        trial = self._running.pop(number)
        with self.journal.group():
            if reason is not None:
                trial.set_user_attr("reason", reason)
            value = None
            if state == TrialState.COMPLETE:
                value = min(self.trial(number).intermediate_values.values())
            self.study.tell(trial, value, state)

    def interrupt(self) -> list[int]:
        """Put every running trial back to waiting, to go on with another time; give their numbers.

        At the start of a session these are the trials of one that was killed.
        """
        interrupted = self.trials(TrialState.RUNNING)
        with self.journal.group():
            for trial in interrupted:
                self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        self._running.clear()
        return [trial.number for trial in interrupted]

    def best(self) -> FrozenTrial | None:
        """The trial with the lowest value: of those complete, else pruned, else unfinished."""
        for states in ((TrialState.COMPLETE,), (TrialState.PRUNED,), UNFINISHED):
            trials = [trial for trial in self.trials(*states) if value_of(trial) is not None]
            if trials:
                return min(trials, key=lambda trial: (value_of(trial), trial.number))
        return None

    def label(self, number: int) -> str:
        """A trial's name as a folder and in MLflow."""
        return f"trial-{number:03d}"

    def tags(self, trial: FrozenTrial, run_ids: Mapping[str, str]) -> dict[str, str]:
        """More tags for a trial's MLflow run; run_ids: what the search has there, by label."""
        return {}

    def trial_folder(self, number: int) -> Path:
        """Where a trial's checkpoints lie."""
        return self.journal.path.parent / "checkpoints" / self.label(number)

    def checkpoint(self, trial: FrozenTrial, which: str = "best") -> Path | None:
        """The weights of a trial's `best` or `latest` checkpoint, or None where there are none."""
        epoch = trial.user_attrs.get("checkpoints", {}).get(which)
        path = self.trial_folder(trial.number) / f"epoch-{epoch or 0:05d}.safetensors"
        return path if path.is_file() else None

    def is_done(self) -> bool:
        """Whether there is no trial left to ask for."""
        return len(self.trials()) >= self.config.search.trials and not self.trials(
            TrialState.WAITING
        )

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()


UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)


def create_study(
    folder: Path,
    config: SearchConfig,
    attrs: dict[str, Any],
    earlier: Sequence[FrozenTrial] = (),
) -> SearchStudy:
    """Begin a search in an empty folder; config, attributes, earlier trials are one record."""
    journal = Journal(folder / JOURNAL)
    storage = JournalStorage(journal)
    with journal.group():
        study = optuna.create_study(storage=storage, study_name=folder.name, direction="minimize")
        store_earlier(study, earlier)
        study.set_user_attr("config", config.dump())
        for key, value in attrs.items():
            study.set_user_attr(key, value)
    return SearchStudy(study, journal, config, load_earlier(study))


def open_study(
    folder: Path, config: SearchConfig | None = None, read_only: bool = False
) -> SearchStudy:
    """Open the search in a folder, with its own config or one that went on from it.

    read_only: nothing can be written, and no lock is needed. Raises ConfigError where the folder
    holds none.
    """
    path = folder / JOURNAL
    if not path.is_file():
        raise ConfigError(f"no search is kept in {folder}: there is no {JOURNAL}")
    journal = Journal(path, read_only)
    try:
        storage = JournalStorage(journal)
        # Others are in the journal with it (earlier trials, continuations); it came first.
        names = optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=names[0], storage=storage)
        config = config or build_config(study.user_attrs["config"])
        return SearchStudy(study, journal, config, load_earlier(study))
    except (ValueError, LookupError, TypeError, AssertionError) as error:  # Optuna's replay
        journal.close()
        raise ConfigError(
            f"{path} holds no whole search ({error}); begin another with --name"
        ) from error


def read_study(folder: Path) -> SearchStudy:
    """The search in a folder as it stands now, to look at: needs no lock and never writes.

    Raises ConfigError where the folder holds none.
    """
    return open_study(folder, read_only=True)


def rows_of(trial: FrozenTrial) -> list[Row]:
    """Every epoch that a trial reported, in order."""
    keys = sorted(key for key in trial.user_attrs if key.startswith("epochs_"))
    return [row for key in keys for row in trial.user_attrs[key]]


def value_of(trial: FrozenTrial) -> float | None:
    """The lowest value that a trial reported so far, or None."""
    return min(trial.intermediate_values.values(), default=None)


def count_states(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """How many trials are COMPLETE, PRUNED, FAIL and RUNNING (which includes interrupted ones)."""
    counts = dict.fromkeys(("COMPLETE", "PRUNED", "FAIL", "RUNNING"), 0)
    for trial in trials:
        counts["RUNNING" if trial.state in UNFINISHED else trial.state.name] += 1
    return counts
