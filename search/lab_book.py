"""One search's runs in MLflow: a parent for the search, a child for each trial.

All that is written can be written again: a metric of the same key, value, time and step is kept
once by MLflow, tags and status are replaced, and a run is looked for by its tags before one is
made. So after a kill at any instant the next session finds what is there and adds what is not.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from search.lab_runs import FINAL, Runs, Shown, shown_as
from search.lab_view import KIND, default_uri, view_tag
from search.pages import MAX_TAG, TEXTS, origin_tags, text_table, trial_metrics, trial_tags
from search.served import register_best
from search.study import SearchStudy, rows_of, value_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

STATUS = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAIL: "FAILED",
    TrialState.RUNNING: "RUNNING",
    TrialState.WAITING: "KILLED",
}


class LabBook:
    """The open book of one search. Opening it finds or makes what is missing.

    Every method raises what MLflow raises; the book is then opened anew.
    """

    def __init__(self, study: SearchStudy, root: Path, uri: str) -> None:
        self.study, self.root = study, root
        self.runs = Runs(uri)
        self.client = self.runs.client
        self.experiment_id = self._experiment()
        self._parent = self._open_parent()
        self._run_ids: dict[str, str] = {}  # of all the search's children, by label
        self._shown = dict(self._children())
        self._num_counted = 0

    @property
    def parent_id(self) -> str:
        """The run of the search itself."""
        return self._parent.run_id

    def run_id(self, number: int) -> str | None:
        """The run that shows a trial, or None."""
        return self._shown[number].run_id if number in self._shown else None

    def lacking(self) -> set[int]:
        """The numbers of the trials that are not shown as the study has them."""
        return {
            trial.number
            for trial in self.study.trials()
            if trial.number not in self._shown or not _is_whole(self._shown[trial.number], trial)
        }

    def show(self, trial: FrozenTrial) -> None:
        """Bring one trial's run up to what the study says of it."""
        if trial.datetime_start is None:  # it waits for its first turn
            return
        rows = rows_of(trial)
        tags = trial_tags(self.study, trial, rows) | self.study.tags(trial, self._run_ids)
        shown = self._shown.get(trial.number) or self._create(trial, tags)
        if _is_whole(shown, trial):
            return
        if "mlflow.loggedArtifacts" in tags:
            self.runs.write_text(shown, TEXTS, text_table(rows))
        if not shown.has_params:  # the first time; what comes with it is as good as params
            self.client.log_inputs(shown.run_id, [_dataset(self.study)])
        metrics = trial_metrics(row for row in rows if row["epoch"] > shown.epoch)
        self.runs.log(shown, list(metrics), {} if shown.has_params else trial.params, tags)
        shown.epoch = rows[-1]["epoch"] if rows else 0
        # The status comes last: only a run with a final one is taken for whole.
        self.runs.set_status(shown, STATUS[trial.state], _end_time(trial))

    def show_progress(self, trials: Sequence[FrozenTrial]) -> None:
        """Bring the best value so far, by the number of trials that have ended."""
        metric = self.study.config.search.metric
        ended = [trial for trial in trials if trial.datetime_complete]
        ended.sort(key=lambda trial: (trial.datetime_complete, trial.number))
        best, points = math.inf, []
        for count, trial in enumerate(ended, 1):
            value = value_of(trial)
            if value is not None and trial.state != TrialState.FAIL:
                best = min(best, value)
            if count > self._num_counted and math.isfinite(best):
                points.append((f"best_{metric}", best, _end_time(trial) or 0, count))
        self.runs.log(self._parent, points, {}, {})
        self._num_counted = len(ended)

    def describe(self, page: str) -> None:
        """Bring the search's readable page, in Markdown, and its best trial as tags."""
        tags = {"mlflow.note.content": page[:MAX_TAG]}
        best = self.study.best()
        if best is not None:
            tags |= {"best_trial": str(best.number)}
            tags |= {key: str(value) for key, value in best.params.items()}
        self.runs.log(self._parent, [], {}, tags)

    def end(self, status: str) -> None:
        """Say whether the search is FINISHED, or KILLED and to be gone on with."""
        self.runs.set_status(self._parent, status, None)

    def write_folder(self, folder: Path, name: str) -> None:
        """Put the files of a folder among the search's artifacts, under `name`."""
        self.runs.artifacts(self._parent).log_artifacts(str(folder), name)

    def register_best(self) -> bool:
        """Register the search's best trial where it beats what is registered; say whether."""
        best = self.study.best()
        shown = self._shown.get(best.number) if best else None
        if shown is None:
            return False
        return register_best(self.client, self.study, shown.run_id, self.runs.artifacts(shown))

    def _experiment(self) -> str:
        name = self.study.config.tracking.experiment
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            for key in KIND.keys() - found.tags.keys():
                self.client.set_experiment_tag(found.experiment_id, key, KIND[key])
            return str(found.experiment_id)
        # Next to the database, so that both are found from any folder.
        local = self.runs.uri == default_uri(self.root)
        location = (self.root / "mlruns" / name).as_uri() if local else None
        return str(self.client.create_experiment(name, location, KIND))

    def _open_parent(self) -> Shown:
        """The search's run, RUNNING, with its config, its text and the view of its link."""
        study = self.study
        search_id = study.attrs["search_id"]
        runs = self.runs.find(self.experiment_id, "search_id", search_id)
        found = [shown_as(run) for run in runs]
        if found:
            parent = self.runs.keep_one(found, study.attrs.get("mlflow_run_id"))
        else:
            tags = {
                "search_id": search_id,
                "search": study.name,
                "command": study.attrs["command"],
                **origin_tags(study),
            }
            parent = self.runs.create(self.experiment_id, study.name, tags)
        self.runs.set_status(parent, "RUNNING", None)
        self.client.log_dict(parent.run_id, study.config.dump(), "config.yaml")
        self.client.log_inputs(parent.run_id, [_dataset(study)])
        key, view = view_tag(search_id, parent.run_id, study.config.search.metric)
        self.client.set_experiment_tag(self.experiment_id, key, view)
        study.set_attr("mlflow_run_id", parent.run_id)
        return parent

    def _children(self) -> Iterator[tuple[int, Shown]]:
        """What MLflow has of this search's trials, by their numbers, each once.

        A run goes whose trial the study does not have, its end having been lost by the disk.
        """
        trials = self.study.trials()
        found: dict[int, list[Shown]] = {}
        for run in list(self.runs.find(self.experiment_id, "mlflow.parentRunId", self.parent_id)):
            self._run_ids[run.info.run_name] = run.info.run_id
            if self.study.kind not in run.data.tags:  # a continuation is beside the trials
                continue
            number = int(run.data.tags[self.study.kind])
            trial = trials[number] if number < len(trials) else None
            if trial and run.data.params in ({}, {k: str(v) for k, v in trial.params.items()}):
                found.setdefault(number, []).append(shown_as(run))
            else:
                self.client.delete_run(run.info.run_id)
        for number, runs in found.items():
            yield number, self.runs.keep_one(runs)

    def _create(self, trial: FrozenTrial, tags: Mapping[str, str]) -> Shown:
        assert trial.datetime_start is not None
        shown = self.runs.create(
            self.experiment_id,
            self.study.label(trial.number),
            {"mlflow.parentRunId": self.parent_id, **tags},
            int(trial.datetime_start.timestamp() * 1000),
        )
        self._shown[trial.number] = shown
        return shown


def _dataset(study: SearchStudy) -> "DatasetInput":
    """The text as MLflow knows data sets; its digest field takes 36 characters."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    corpus, data = study.attrs["corpus"], study.config.data
    dataset = Dataset(
        name=corpus["name"],
        digest=corpus["sha256"][:36],
        source_type="local",
        source=json.dumps({"corpus": data.corpus, "sha256": corpus["sha256"]}),
        profile=json.dumps(
            {"num_tokens": corpus["tokens"], "vocab_size": corpus["vocab"], **data.model_dump()}
        ),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _is_whole(shown: Shown, trial: FrozenTrial) -> bool:
    """Whether the run says all that there will ever be to say of the trial."""
    return (
        trial.state.is_finished()
        and shown.status in FINAL
        and shown.tags.get("trial_state") == trial.state.name
    )


def _end_time(trial: FrozenTrial) -> int | None:
    return int(trial.datetime_complete.timestamp() * 1000) if trial.datetime_complete else None
