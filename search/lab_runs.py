"""Runs of MLflow: found by their tags, written in few calls, each of which can be made twice."""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

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
    """MLflow at an address, quiet.

    Importing MLflow and opening its database costs 3 s of CPU, and 2 s more where it must be made.
    """
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


class Runs:
    """The runs in one tracking store. Every method raises what MLflow raises."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client = open_client(uri)

    def create(
        self, experiment_id: str, name: str, tags: dict[str, str], start_time: int | None = None
    ) -> Shown:
        """Make a run; start_time in ms, None: now."""
        return shown_as(self.client.create_run(experiment_id, start_time, tags, name))

    def find(self, experiment_id: str, tag: str, value: str) -> "Iterator[Run]":
        """All runs of an experiment that are not deleted and have this tag."""
        token = None
        while True:
            query = f"tags.`{tag}` = '{value}'"
            page = self.client.search_runs([experiment_id], query, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def keep_one(self, runs: Sequence[Shown], known: str | None = None) -> Shown:
        """The fullest of the runs that stand for one thing, or the one that is `known`.

        The others were made by requests whose answers were lost; they go.
        """
        kept, *extra = sorted(
            runs,
            key=lambda run: (run.run_id != known, run.status not in FINAL, not run.has_params),
        )
        for run in extra:
            self.client.delete_run(run.run_id)
        return kept

    def log(
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

    def set_status(self, shown: Shown, status: str, end_time: int | None) -> None:
        """FINISHED and FAILED end a run; KILLED and RUNNING leave its end open."""
        if status in FINAL and shown.status != status:
            self.client.set_terminated(shown.run_id, status, end_time)
        elif shown.status != status:
            self.client.update_run(shown.run_id, status)
        shown.status = status

    def write_text(self, shown: Shown, name: str, text: str) -> None:
        """Put a file among a run's artifacts."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(text, "utf-8")
            self.artifacts(shown).log_artifact(str(path))

    def artifacts(self, shown: Shown) -> Any:
        """Where a run's files go. The client's own way asks for the run first, 9 ms each time."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(shown.artifact_uri, tracking_uri=self.uri)


def shown_as(run: "Run") -> Shown:
    """What MLflow says of a run."""
    info, data = run.info, run.data
    return Shown(info.run_id, info.artifact_uri, info.status, dict(data.tags), bool(data.params))
