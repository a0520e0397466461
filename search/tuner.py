"""The bridge to Ray Tune: Tune executes what the study proposes, and stops what it prunes.

The study decides, Tune is thrown away: no Tune checkpoint is written and none is trusted.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from search.cluster import Workers
from search.messages import Report, TrainingData, TrialSpec
from search.samplers import rungs
from search.study import SearchStudy
from search.worker import TrialWorker

# How long running trials have to reach their next report once a stop was asked for.
GRACE_S = 4.0


class Rest(BaseException):
    """The search is done or stopped: leave Tune where it is.

    Its own way out stops the workers one by one, for seconds; nothing of theirs is needed any
    more. A BaseException, so that no handler of Tune's takes it for a failure.
    """


class StudySearcher(Searcher):
    """Asks the study for Tune; as many trials at a time as there are workers."""

    def __init__(self, driver: "Driver") -> None:
        super().__init__()
        self.driver = driver

    def suggest(self, trial_id: str) -> Any:
        """A config with the next trial's spec; None while all workers are busy."""
        return self.driver.next_trial(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Free the worker's place. The study knows the end already; errors come by callback."""
        self.driver.numbers.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""


class StudyStopper(tune.Stopper):
    """Tells the study each report, and Tune whether the trial ends with it."""

    def __init__(self, driver: "Driver") -> None:
        self.driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """True where the trial is complete, pruned or failed, or the search is to stop."""
        return self.driver.take_report(trial_id, result["report"])

    def stop_all(self) -> bool:
        """Called after each of Tune's steps: raises Rest once nothing is left to wait for."""
        if self.driver.at_rest():
            raise Rest
        return False


class ErrorCallback(tune.Callback):
    """Tells the study of a trial whose worker failed more often than it may."""

    def __init__(self, driver: "Driver") -> None:
        self.driver = driver

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """FAIL, with the last line of the error."""
        error = trial.get_error()
        lines = [line.strip() for line in str(error or "the worker died").splitlines()]
        self.driver.take_failure(trial.config["spec"].number, [x for x in lines if x][-1])


class Driver:
    """What the three hooks share: the study, who runs what, and whether to stop.

    on_change(number) is called after each change of a trial, on Tune's thread, and must be quick.
    notify(line) shows the person a line.
    """

    def __init__(
        self,
        study: SearchStudy,
        workers: Workers,
        on_change: Callable[[int], None],
        notify: Callable[[str], None],
    ) -> None:
        self.study, self.workers = study, workers
        self.on_change, self.notify = on_change, notify
        self.numbers: dict[str, int] = {}
        self.train_s = 0.0
        self.stop_reason: str | None = None
        self._stopped_at = 0.0
        budget = study.config.search.time_budget_s
        self._deadline = time.monotonic() + budget if budget else float("inf")
        self._rungs = rungs(study.config)
        self._kept = {
            trial.number
            for trial in study.trials(TrialState.PRUNED)
            if study.trial_folder(trial.number).exists()
        }

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its hooks for a restore that never comes."""
        return {}

    def stop(self, reason: str) -> None:
        """Ask for no more trials, and let running ones end with their next report."""
        if self.stop_reason is None:
            self.stop_reason, self._stopped_at = reason, time.monotonic()

    def at_rest(self) -> bool:
        """Whether nothing runs that should be waited for."""
        now = time.monotonic()
        if now > self._deadline:
            self.stop("the time budget is used up")
        if self.stop_reason is not None:
            return not self.numbers or now > self._stopped_at + GRACE_S
        return not self.numbers and self.study.is_done()

    def next_trial(self, trial_id: str) -> Any:
        """The next trial's config, None while no worker is free, or Searcher.FINISHED."""
        if self.stop_reason is not None or self.study.is_done():
            return Searcher.FINISHED
        if len(self.numbers) >= self.workers.count:
            return None
        proposal = self.study.ask()
        config = self.study.config
        self.numbers[trial_id] = proposal.number
        self.on_change(proposal.number)
        spec = TrialSpec(
            number=proposal.number,
            params=proposal.params,
            seed=proposal.seed,
            train=config.train.model_dump(),
            metric=config.search.metric,
            rungs=self._rungs,
            folder=self.study.trial_folder(proposal.number),
            num_threads=max(1, int(config.search.cpus_per_trial)),
        )
        return {"spec": spec}

    def take_report(self, trial_id: str, report: Report) -> bool:
        """Tell the study, then everyone else; True where the trial ends."""
        number = self.numbers[trial_id]
        for notice in report.notices:
            self.notify(notice)
        self.train_s += sum(row["train_s"] for row in report.rows)
        ended = self.study.report(number, report)
        if ended:
            self._tidy(number)
        self.on_change(number)
        return ended or self.stop_reason is not None

    def _tidy(self, number: int) -> None:
        """Remove a pruned trial's checkpoints, unless it is the best there is so far."""
        if self.study.trial(number).state == TrialState.PRUNED:
            self._kept.add(number)
        best = self.study.best()
        for kept in self._kept - {best.number if best else number}:
            shutil.rmtree(self.study.trial_folder(kept), ignore_errors=True)
            self._kept.discard(kept)

    def take_failure(self, number: int, reason: str) -> None:
        """FAIL for a trial whose worker cannot be brought to the end of it."""
        self.study.finish(number, TrialState.FAIL, reason)
        self.on_change(number)


def run_trials(driver: Driver, data: TrainingData) -> None:
    """Run trials until the study has all that were asked for, or a stop."""
    search = driver.study.config.search
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(driver.workers.count)
    factory = tune.PlacementGroupFactory([driver.workers.claim])
    worker = tune.with_resources(tune.with_parameters(TrialWorker, data=data), factory)
    with tempfile.TemporaryDirectory(prefix="rnn-search-") as scratch:
        tuner = tune.Tuner(
            worker,
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(driver),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"trial-{trial.config['spec'].number:03d}",
            ),
            run_config=tune.RunConfig(
                name=driver.study.name,
                storage_path=scratch,
                stop=StudyStopper(driver),
                callbacks=[ErrorCallback(driver)],
                failure_config=tune.FailureConfig(max_failures=search.max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        with suppress(Rest):
            tuner.fit()
