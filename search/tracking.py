"""MLflow, as a picture of the study: the only file that knows it.

A thread of its own brings to MLflow what the study has and MLflow lacks, in batches, so that
neither training nor the search waits for it. Nothing is kept here: what MLflow did not take is
still in the study and is brought when it answers, at the latest at the search's next start.
"""

import logging
import os
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from search.config import ConfigError
from search.messages import Row
from search.study import SearchStudy, rows_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS = ("train_perplexity", "val_perplexity", "grad_norm", "clip_fraction", "tokens_per_s")
STATUS = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAIL: "FAILED",
    TrialState.RUNNING: "RUNNING",
    TrialState.WAITING: "KILLED",
}
MAX_TAG = 5000  # characters; MLflow refuses more than 8000
ROWS_A_BATCH = 150  # of 5 metrics each; MLflow takes 1000 metrics a call
RETRY_S = 5.0


@dataclass(frozen=True)
class Shown:
    """What MLflow has of a trial: its run, the last epoch and the state."""

    run_id: str
    epoch: int
    state: str


def tracking_uri(configured: str | None, root: Path) -> str:
    """The config's, else MLFLOW_TRACKING_URI, else a database in the root folder."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(root)


def default_uri(root: Path) -> str:
    """Where `mlflow ui` without flags looks, when it is started in the root folder."""
    return f"sqlite:///{root / 'mlflow.db'}"


def _client(uri: str) -> "MlflowClient":
    """Imports MLflow, which takes seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def find_trial(uri: str, run_id: str) -> tuple[str, str, int]:
    """The search, the kind ("trial" or "continuation") and the number that a run shows.

    Raises ConfigError for a run that MLflow does not know, or that shows no trial.
    """
    client = _client(uri)
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


class Tracker:
    """Keeps MLflow in step with a study; made once a session, on the driver.

    `touch(number)` after each change of a trial; `close(status)` at the end.
    """

    def __init__(self, study: SearchStudy, root: Path) -> None:
        self.study, self.root = study, root
        self.uri = tracking_uri(study.config.tracking.uri, root)
        self.busy_s = 0.0
        self._dirty: set[int] = set()
        self._run_ids: dict[str, str] = {}  # of all the search's children, by label
        self._shown: dict[int, Shown] = {}
        self._wake = threading.Condition()
        self._closing: str | None = None
        self._parent_id = ""
        self._experiment_id = ""
        self.error: str | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def start(self) -> None:
        """Start bringing; imports MLflow, which takes seconds, in the background."""
        self._thread.start()

    def touch(self, number: int) -> None:
        """Say that a trial has changed in the study. Returns at once."""
        with self._wake:
            self._dirty.add(number)
            self._wake.notify()

    def finish(self) -> None:
        """Say that nothing will change any more: what is left is brought, with honest states.

        A trial that waits to go on is shown as KILLED, and so is a search that is not done.
        """
        with self._wake:
            self._dirty |= {trial.number for trial in self.study.trials(TrialState.WAITING)}
            self._closing = "FINISHED" if self.study.is_done() else "KILLED"
            self._wake.notify()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end, at most so long; False where something stayed behind."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self._dirty

    def run_id(self, number: int) -> str | None:
        """The MLflow run that shows a trial, once there is one."""
        return self._shown[number].run_id if number in self._shown else None

    def ui_command(self) -> str:
        """The command that opens MLflow on what this search wrote."""
        if self.uri == default_uri(self.root):
            folder = "" if self.root == Path.cwd() else f"cd {shlex.quote(str(self.root))} && "
            return f"{folder}mlflow ui --workers 1"
        if self.uri.startswith("http"):
            return self.uri
        return f"mlflow ui --workers 1 --backend-store-uri {shlex.quote(self.uri)}"

    def _run(self) -> None:
        client: MlflowClient | None = None
        while True:
            try:
                client = client or self._connect()
                if not self._deliver(client):
                    return
                self.error = None
            except Exception as error:  # whatever MLflow raises must not stop the search
                self.error = " ".join(str(error).split())[:200] or type(error).__name__
                client = None  # what it shows is read again before anything is written
                if self._closing:
                    return
                time.sleep(RETRY_S)

    def _deliver(self, client: "MlflowClient") -> bool:
        """Wait for changes and bring them; False once closing and all is brought."""
        with self._wake:
            while not (self._dirty or self._closing):
                self._wake.wait()
            numbers, closing = sorted(self._dirty), self._closing
        started = time.thread_time()
        for number in numbers:
            with self._wake:
                self._dirty.discard(number)
            try:
                self._show(client, self.study.trial(number))
            except Exception:
                self.touch(number)
                raise
        if closing and not self._dirty:
            self._end(client, closing)
        self.busy_s += time.thread_time() - started
        return not closing or bool(self._dirty)

    def _connect(self) -> "MlflowClient":
        """A client, with the search's run in place and what MLflow has of it known."""
        client = _client(self.uri)
        name = self.study.config.tracking.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            self._experiment_id = experiment.experiment_id
        else:
            # Next to the database, so that both are found from any folder.
            local = self.uri == default_uri(self.root)
            location = (self.root / "mlruns" / name).as_uri() if local else None
            self._experiment_id = client.create_experiment(name, location)
        self._parent_id = self._find_parent(client)
        self._shown = dict(self._read_shown(client))
        return client

    def _find_parent(self, client: "MlflowClient") -> str:
        """The search's run, by its tag: MLflow may have lost it, or the study not know it yet."""
        study_tag = self.study.attrs["search_id"]
        found = client.search_runs([self._experiment_id], f"tags.search_id = '{study_tag}'")
        if found:
            run_id = found[0].info.run_id
            client.update_run(run_id, status="RUNNING")
        else:
            tags = {"search_id": study_tag, "search": self.study.name}
            run = client.create_run(self._experiment_id, tags=tags, run_name=self.study.name)
            run_id = run.info.run_id
            client.log_dict(run_id, self.study.config.dump(), "config.yaml")
        self.study.set_attr("mlflow_run_id", run_id)
        return str(run_id)

    def _read_shown(self, client: "MlflowClient") -> Iterator[tuple[int, Shown]]:
        """What MLflow has of this study's trials, by their numbers."""
        token = None
        while True:
            page = client.search_runs(
                [self._experiment_id],
                f"tags.`mlflow.parentRunId` = '{self._parent_id}'",
                page_token=token,
            )
            for run in page:
                tags = run.data.tags
                self._run_ids[run.info.run_name] = run.info.run_id
                if self.study.kind not in tags:  # the search's continuations are beside its trials
                    continue
                yield (
                    int(tags[self.study.kind]),
                    Shown(run.info.run_id, int(tags.get("epoch", 0)), tags.get("trial_state", "")),
                )
            token = page.token
            if not token:
                return

    def _show(self, client: "MlflowClient", trial: FrozenTrial) -> None:
        """Bring one trial's run up to what the study says of it."""
        shown = self._shown.get(trial.number) or self._create_run(client, trial)
        self._shown[trial.number] = shown
        if shown.state == trial.state.name and trial.state.is_finished():
            return
        all_rows = rows_of(trial)
        rows = [row for row in all_rows if row["epoch"] > shown.epoch]
        tags = {"trial_state": trial.state.name}
        if "reason" in trial.user_attrs:
            tags["reason"] = trial.user_attrs["reason"][:MAX_TAG]
        if all_rows:
            tags["epoch"] = str(all_rows[-1]["epoch"])
            tags["sample_text"] = all_rows[-1]["sample_text"][:MAX_TAG]
        for begin in range(0, len(rows), ROWS_A_BATCH):
            client.log_batch(shown.run_id, _metrics(rows[begin : begin + ROWS_A_BATCH]))
        if trial.state != TrialState.RUNNING:
            client.log_text(shown.run_id, _text_history(all_rows), "sample_text.txt")
        # The tags say how far the metrics go, so they come after them: what is brought twice
        # after a kill is the same metric at the same step and time, which MLflow keeps once.
        params = [] if shown.state else _params(trial.params)
        client.log_batch(shown.run_id, params=params, tags=_tags(tags))
        if trial.state.name != shown.state and STATUS[trial.state] != "RUNNING":
            client.set_terminated(shown.run_id, STATUS[trial.state], _end_time(trial))
        elif shown.state == TrialState.WAITING.name:
            client.update_run(shown.run_id, status="RUNNING")
        self._shown[trial.number] = Shown(
            shown.run_id, all_rows[-1]["epoch"] if all_rows else 0, trial.state.name
        )

    def _create_run(self, client: "MlflowClient", trial: FrozenTrial) -> Shown:
        assert trial.datetime_start is not None
        name = self.study.label(trial.number)
        run = client.create_run(
            self._experiment_id,
            start_time=int(trial.datetime_start.timestamp() * 1000),
            tags={
                "mlflow.parentRunId": self._parent_id,
                "search": self.study.name,
                self.study.kind: str(trial.number),
                **self.study.tags(trial, self._run_ids),
            },
            run_name=name,
        )
        return Shown(run.info.run_id, 0, "")

    def _end(self, client: "MlflowClient", status: str) -> None:
        """The search's own run: its best value so far, and whether it is done."""
        best = self.study.best()
        if best is not None:
            tags = {"best_trial": str(best.number), **{k: str(v) for k, v in best.params.items()}}
            client.log_batch(self._parent_id, tags=_tags(tags))
        client.set_terminated(self._parent_id, status)


def _metrics(rows: list[Row]) -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(key, row[key], row["time"], row["epoch"])
        for row in rows
        for key in METRICS
        if row[key] is not None
    ]


def _params(params: dict[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(key, str(value)) for key, value in params.items()]


def _tags(tags: dict[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def _text_history(rows: list[Row]) -> str:
    """What the trial wrote, epoch by epoch."""
    return "".join(
        f"epoch {row['epoch']}, train_perplexity {row['train_perplexity']:.4g}"
        + (f", val_perplexity {row['val_perplexity']:.4g}" if row["val_perplexity"] else "")
        + f"\n{row['sample_text']}\n\n"
        for row in rows
    )


def _end_time(trial: FrozenTrial) -> int | None:
    return int(trial.datetime_complete.timestamp() * 1000) if trial.datetime_complete else None
