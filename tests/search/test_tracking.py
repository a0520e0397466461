"""What MLflow shows is what the study holds, whatever happened in between."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from optuna.trial import TrialState

from search.lab_book import LabBook
from search.lab_view import default_uri
from search.messages import Report
from search.study import SearchStudy
from search.tracking import Tracker
from tests.search.stores import (
    bring,
    children,
    new_store,
    new_study,
    parents,
    row,
    rows,
    run_trial,
    steps,
)


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return new_store(tmp_path)


@pytest.fixture
def study(tmp_path: Path) -> Iterator[SearchStudy]:
    study = new_study(tmp_path)
    yield study
    study.close()


def test_mlflow_keeps_a_metric_logged_twice_once(client: MlflowClient) -> None:
    run = client.create_run("0").info.run_id
    for _ in range(2):
        client.log_batch(run, [Metric("m", 1.5, 1000, step) for step in range(3)])
    assert [metric.step for metric in client.get_metric_history(run, "m")] == [0, 1, 2]


def test_a_complete_trial_is_shown_with_all_its_epochs(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    run_trial(study)
    bring(study, tmp_path)
    (run,) = children(client)
    assert run.info.status == "FINISHED" and run.info.run_name == "trial-000"
    assert run.data.params == {key: str(value) for key, value in study.trial(0).params.items()}
    assert steps(client, run) == list(range(1, 9))
    assert run.data.metrics["val_perplexity"] == pytest.approx(8.2)
    assert run.data.metrics["sample_copied"] == 0.5


def test_a_trial_says_where_it_comes_from_and_how_to_run_it_again(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    run_trial(study)
    bring(study, tmp_path)
    tags = children(client)[0].data.tags
    assert tags["trial_state"] == "COMPLETE" and tags["epoch"] == "8"
    assert tags["sample_text"] == "time traveller 8"
    assert tags["versions"] == "python 3.11, torch 2.13.0"
    assert tags["command"] == "python search/resume.py --name s --trial 0 --from start"


def test_the_texts_of_a_trial_are_a_table(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    run_trial(study)
    bring(study, tmp_path)
    (run,) = children(client)
    path = client.download_artifacts(run.info.run_id, "sample_text.json", str(tmp_path))
    table = json.loads(Path(path).read_text())
    assert table["columns"][0] == "epoch" and table["columns"][-1] == "sample_text"
    assert [(line[0], line[-1]) for line in table["data"]] == [
        (epoch, f"time traveller {epoch}") for epoch in range(1, 9)
    ]
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"])[0]["type"] == "table"


@pytest.mark.parametrize(
    ("state", "status"), [(TrialState.PRUNED, "FINISHED"), (TrialState.FAIL, "FAILED")]
)
def test_a_trial_that_ended_early_has_an_honest_status(
    client: MlflowClient, study: SearchStudy, tmp_path: Path, state: TrialState, status: str
) -> None:
    number = study.ask().number
    study.report(number, Report(rows(1, 2)))
    study.finish(number, state, "loss = nan in epoch 3")
    bring(study, tmp_path)
    (run,) = children(client)
    assert run.info.status == status and run.data.tags["trial_state"] == state.name
    assert run.data.tags["reason"] == "loss = nan in epoch 3"


def test_an_interrupted_search_and_its_trials_are_killed_and_run_again_when_resumed(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    study.report(study.ask().number, Report(rows(1, 3)))
    study.interrupt()
    bring(study, tmp_path)
    assert [run.info.status for run in children(client) + parents(client)] == ["KILLED"] * 2
    study.report(study.ask().number, Report(rows(2, 8), done=True))
    bring(study, tmp_path)
    (run,) = children(client)
    assert run.info.status == "FINISHED" and steps(client, run) == list(range(1, 9))


def test_a_resumed_trial_is_shown_running(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    study.report(study.ask().number, Report(rows(1, 3)))
    study.interrupt()
    bring(study, tmp_path)
    study.report(study.ask().number, Report(rows(4, 5)))
    bring(study, tmp_path)
    assert children(client)[0].info.status == "RUNNING"


def test_a_search_that_is_done_is_finished_and_says_so_on_its_page(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    for value in (9, 7, 8, 6.5):
        run_trial(study, value)
    bring(study, tmp_path)
    (parent,) = parents(client)
    assert parent.info.status == "FINISHED" and parent.data.tags["best_trial"] == "3"
    assert "The winner: trial 3" in parent.data.tags["mlflow.note.content"]
    history = client.get_metric_history(parent.info.run_id, "best_val_perplexity")
    assert [(metric.step, round(metric.value, 3)) for metric in history] == [
        (1, 8.2),
        (2, 6.2),
        (3, 6.2),
        (4, 5.7),
    ]


def test_the_corpus_is_a_data_set_of_the_search_and_of_each_trial(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    run_trial(study)
    bring(study, tmp_path)
    for run in parents(client) + children(client):
        assert run.inputs is not None
        (dataset,) = (found.dataset for found in run.inputs.dataset_inputs)
        assert dataset.name == "bundled" and dataset.digest == ("ab" * 32)[:36]
        assert json.loads(dataset.profile or "")["vocab_size"] == 28


def test_what_a_session_did_not_bring_the_next_one_does(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    run_trial(study)
    run_trial(study)
    bring(study, tmp_path)
    assert [steps(client, run) for run in children(client)] == [list(range(1, 9))] * 2


def test_bringing_twice_changes_nothing(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    run_trial(study)
    study.report(study.ask().number, Report(rows(1, 3)))
    bring(study, tmp_path)
    before = [(run.to_dictionary(), steps(client, run)) for run in children(client)]
    bring(study, tmp_path)
    assert [(run.to_dictionary(), steps(client, run)) for run in children(client)] == before


def test_more_metrics_than_a_call_takes_are_all_brought(
    client: MlflowClient, tmp_path: Path
) -> None:
    study = new_study(tmp_path, "train.max_epochs=500")
    study.report(study.ask().number, Report(rows(1, 500), done=True))
    bring(study, tmp_path)
    assert steps(client, children(client)[0]) == list(range(1, 501))
    study.close()


def test_numbers_that_no_chart_can_show_are_left_out(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    study.report(
        study.ask().number, Report([{**row(1), "grad_norm": float("inf")}, row(2)], done=True)
    )
    bring(study, tmp_path)
    assert steps(client, children(client)[0], "grad_norm") == [2]


def test_a_run_made_twice_by_a_lost_answer_is_left_once(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    run_trial(study)
    bring(study, tmp_path)
    (child,), (parent,) = children(client), parents(client)
    for run in (child, parent):
        client.create_run(run.info.experiment_id, tags=run.data.tags)
    bring(study, tmp_path)
    assert [run.info.run_id for run in children(client)] == [child.info.run_id]
    assert [run.info.run_id for run in parents(client)] == [parent.info.run_id]


class Killed(BaseException):
    """Stands for a kill -9: nobody handles it."""


def dies_after(num_calls: int) -> type[MlflowClient]:
    """A client whose process is killed once so many of its calls were carried out."""
    left = iter(range(num_calls - 1))

    class Dying(MlflowClient):
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name.startswith("_") or not callable(value):
                return value

            def call(*args: Any, **kwargs: Any) -> Any:
                result = value(*args, **kwargs)
                if next(left, None) is None:
                    raise Killed
                return result

            return call

    return Dying


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_after_a_kill_at_any_call_the_next_session_completes_the_picture(tmp_path: Path) -> None:
    for num_calls in range(1, 40):
        root = tmp_path / str(num_calls)
        study = new_study(root)
        client = new_store(root)
        run_trial(study)
        study.report(study.ask().number, Report(rows(1, 3)))
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("mlflow.MlflowClient", dies_after(num_calls))
                book = LabBook(study, root, default_uri(root))
                for trial in study.trials():
                    book.show(trial)
                book.show_progress(study.trials())
                book.describe("page")
        except Killed:
            bring(study, root)
            assert [steps(client, run) for run in children(client)] == [[*range(1, 9)], [1, 2, 3]]
            assert [run.info.status for run in children(client)] == ["FINISHED", "RUNNING"]
            assert len(parents(client)) == 1
            study.close()
        else:
            study.close()
            assert num_calls > 10
            return
    pytest.fail("the book never came to its end")


def test_runs_that_a_person_deleted_are_made_again(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    run_trial(study)
    bring(study, tmp_path)
    for run in children(client) + parents(client):
        client.delete_run(run.info.run_id)
    bring(study, tmp_path)
    assert [steps(client, run) for run in children(client)] == [list(range(1, 9))]


def test_a_trial_says_by_which_step_and_on_which_device_it_trained(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    computed = {"step": "torch", "device": "cpu"}
    study.report(study.ask().number, Report(rows(1, 3), computed=computed))
    bring(study, tmp_path)
    (run,) = children(client)
    assert {key: run.data.tags[key] for key in computed} == computed


def test_a_report_is_put_among_the_searchs_artifacts(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "wall.html").write_text("x")
    bring(study, tmp_path, report=lambda stills: folder)
    (parent,) = parents(client)
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "report")] == [
        "report/wall.html"
    ]


def test_a_report_that_fails_costs_nothing_else(
    client: MlflowClient, study: SearchStudy, tmp_path: Path
) -> None:
    run_trial(study)

    def fail(stills: bool) -> Path:
        raise ZeroDivisionError("no picture")

    lines: list[str] = []
    tracker = Tracker(study, tmp_path, lines.append, fail)
    tracker.start()
    assert tracker.close(60)
    tracker.finish(60)
    assert lines[-1] == "the report could not be written: no picture"
    assert parents(client)[0].info.status == "KILLED"
