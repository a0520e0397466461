"""One search's runs in MLflow: a parent for the search, a child for each trial.

All that is written can be written again: a metric of the same key, value, time and step is kept
once by MLflow, tags and status are replaced, and a run is looked for by its tags before one is
made. So after a kill at any instant the next session finds what is there and adds what is not.
"""

import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from search.config import ConfigError
from search.lab_view import KIND, default_uri, view_tag
from search.pages import MAX_TAG, TEXTS, origin_tags, text_table, trial_metrics, trial_tags
from search.served import register_best
from search.study import SearchStudy, rows_of, value_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

STATUS = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAIL: "FAILED",
    TrialState.RUNNING: "RUNNING",
    TrialState.WAITING: "KILLED",
}
FINAL = ("FINISHED", "FAILED")
METRICS_A_BATCH = 900  # MLflow takes 1000 items a call

# A person's own setting wins. No retry below ours: MLflow would repeat a "create" whose answer
# was lost and so make a second run; we look for the first before we try again.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


@dataclass
class Shown:
    """What MLflow has of a run. tags: as last written. epoch: the last whose metrics it has."""

    run_id: str
    artifact_uri: str
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    has_params: bool = False
    epoch: int = 0


def open_client(uri: str) -> "MlflowClient":
    """MLflow at an address, quiet. Imports MLflow, which takes seconds."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def find_trial(uri: str, run_id: str) -> tuple[str, str, int]:
    """The search, the kind ("trial" or "continuation") and the number that a run shows.

    Raises ConfigError for a run that MLflow does not know, or that shows no trial.
    """
    client = open_client(uri)
    from mlflow.exceptions import MlflowException

    try:
        tags = client.get_run(run_id).data.tags
    except MlflowException as error:
        raise ConfigError(
            f"`--run-id` must be a run in MLflow at {uri}, but got {run_id!r}: {error}"
        ) from error
    for kind in ("continuation", "trial"):
        if "search" in tags and tags.get(kind, "").isdecimal():
            return tags["search"], kind, int(tags[kind])
    raise ConfigError(
        f"`--run-id` must be the run of a trial, but {run_id!r} is not; for the best trial of a "
        f"search give its --name"
    )


class LabBook:
    """The open book of one search. Opening it finds or makes what is missing.

    Importing MLflow and opening its database costs 3 s of CPU, and 2 s more where it must be
    made. Every method raises what MLflow raises; the book is then opened anew.
    """

    def __init__(self, study: SearchStudy, root: Path, uri: str) -> None:
        self.study, self.root, self.uri = study, root, uri
        self.client = open_client(uri)
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
            self._write_text(shown, TEXTS, text_table(rows))
        metrics = trial_metrics(row for row in rows if row["epoch"] > shown.epoch)
        self._log(shown, list(metrics), {} if shown.has_params else trial.params, tags)
        shown.epoch = rows[-1]["epoch"] if rows else 0
        # The status comes last: only a run with a final one is taken for whole.
        self._set_status(shown, STATUS[trial.state], _end_time(trial))

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
        self._log(self._parent, points, {}, {})
        self._num_counted = len(ended)

    def describe(self, page: str) -> None:
        """Bring the search's readable page, in Markdown, and its best trial as tags."""
        tags = {"mlflow.note.content": page[:MAX_TAG]}
        best = self.study.best()
        if best is not None:
            tags |= {"best_trial": str(best.number)}
            tags |= {key: str(value) for key, value in best.params.items()}
        self._log(self._parent, [], {}, tags)

    def end(self, status: str) -> None:
        """Say whether the search is FINISHED, or KILLED and to be gone on with."""
        self._set_status(self._parent, status, None)

    def write_folder(self, folder: Path, name: str) -> None:
        """Put the files of a folder among the search's artifacts, under `name`."""
        self._artifacts(self._parent).log_artifacts(str(folder), name)

    def register_best(self) -> bool:
        """Register the search's best trial where it beats what is registered; say whether."""
        best = self.study.best()
        shown = self._shown.get(best.number) if best else None
        if shown is None:
            return False
        return register_best(self.client, self.study, shown.run_id, self._artifacts(shown))

    def _experiment(self) -> str:
        name = self.study.config.tracking.experiment
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            for key in KIND.keys() - found.tags.keys():
                self.client.set_experiment_tag(found.experiment_id, key, KIND[key])
            return str(found.experiment_id)
        # Next to the database, so that both are found from any folder.
        local = self.uri == default_uri(self.root)
        location = (self.root / "mlruns" / name).as_uri() if local else None
        return str(self.client.create_experiment(name, location, KIND))

    def _open_parent(self) -> Shown:
        """The search's run, RUNNING, with its config, its text and the view of its link."""
        study = self.study
        search_id = study.attrs["search_id"]
        found = [_shown(run) for run in self._find("search_id", search_id)]
        if found:
            parent = self._keep_one(found)
        else:
            tags = {
                "search_id": search_id,
                "search": study.name,
                "command": study.attrs["command"],
                **origin_tags(study),
            }
            run = self.client.create_run(self.experiment_id, tags=tags, run_name=study.name)
            parent = _shown(run)
        self._set_status(parent, "RUNNING", None)
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
        for run in list(self._find("mlflow.parentRunId", self.parent_id)):
            self._run_ids[run.info.run_name] = run.info.run_id
            if self.study.kind not in run.data.tags:  # a continuation is beside the trials
                continue
            number = int(run.data.tags[self.study.kind])
            trial = trials[number] if number < len(trials) else None
            if trial and run.data.params in ({}, {k: str(v) for k, v in trial.params.items()}):
                found.setdefault(number, []).append(_shown(run))
            else:
                self.client.delete_run(run.info.run_id)
        for number, runs in found.items():
            yield number, self._keep_one(runs)

    def _find(self, tag: str, value: str) -> "Iterator[Run]":
        token = None
        while True:
            query = f"tags.`{tag}` = '{value}'"
            page = self.client.search_runs([self.experiment_id], query, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _keep_one(self, runs: Sequence[Shown]) -> Shown:
        """The fullest of the runs that stand for one thing, or the one that the study knows.

        The others were made by requests whose answers were lost; they go.
        """
        known = self.study.attrs.get("mlflow_run_id")
        kept, *extra = sorted(
            runs,
            key=lambda run: (run.run_id != known, run.status not in FINAL, not run.has_params),
        )
        for run in extra:
            self.client.delete_run(run.run_id)
        return kept

    def _create(self, trial: FrozenTrial, tags: Mapping[str, str]) -> Shown:
        assert trial.datetime_start is not None
        run = self.client.create_run(
            self.experiment_id,
            start_time=int(trial.datetime_start.timestamp() * 1000),
            tags={"mlflow.parentRunId": self.parent_id, **tags},
            run_name=self.study.label(trial.number),
        )
        self._shown[trial.number] = shown = _shown(run)
        return shown

    def _log(
        self,
        shown: Shown,
        points: Sequence[tuple[str, float, int, int]],
        params: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Write metrics, params and what has changed of the tags, in as few calls as it takes."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(*point) for point in points]
        new_tags = [RunTag(key, tags[key]) for key in tags if shown.tags.get(key) != tags[key]]
        while len(metrics) > METRICS_A_BATCH:
            self.client.log_batch(shown.run_id, metrics[:METRICS_A_BATCH])
            metrics = metrics[METRICS_A_BATCH:]
        if metrics or params or new_tags:
            new_params = [Param(key, str(value)) for key, value in params.items()]
            self.client.log_batch(shown.run_id, metrics, new_params, new_tags)
        shown.tags |= tags
        shown.has_params |= bool(params)

    def _set_status(self, shown: Shown, status: str, end_time: int | None) -> None:
        """FINISHED and FAILED end a run; KILLED and RUNNING leave its end open."""
        if status in FINAL and shown.status != status:
            self.client.set_terminated(shown.run_id, status, end_time)
        elif shown.status != status:
            self.client.update_run(shown.run_id, status)
        shown.status = status

    def _write_text(self, shown: Shown, name: str, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(text, "utf-8")
            self._artifacts(shown).log_artifact(str(path))

    def _artifacts(self, shown: Shown) -> Any:
        """Where a run's files go. The client's own way asks for the run first, 9 ms each time."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(shown.artifact_uri, tracking_uri=self.uri)


def _shown(run: "Run") -> Shown:
    info, data = run.info, run.data
    return Shown(info.run_id, info.artifact_uri, info.status, dict(data.tags), bool(data.params))


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
