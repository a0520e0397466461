"""Training on: bit for bit what one long training gives, whatever interrupts it."""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from optuna.trial import TrialState

from model.checkpoint import checkpoint_paths, load_checkpoint
from search import resume, sample
from search.config import SearchConfig
from search.continuations import Continuations, continuations_of
from search.lab_view import default_uri
from search.study import SearchStudy, open_study, rows_of
from search.tracking import Tracker
from tests.search.trained import call, command, environment, make_search, small_config

# MLflow's own use of SQLAlchemy; it knows.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

ENQUEUED = [{"sampling": "sequential"}, {"sampling": "random"}]


def config(max_epochs: int) -> SearchConfig:
    """A trial of each sampling; the same ones for every number of epochs."""
    before = small_config(enqueue=ENQUEUED)
    train = before.train.model_copy(update={"max_epochs": max_epochs})
    return before.model_copy(update={"train": train})


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished search, `s`, that MLflow shows."""
    root = tmp_path_factory.mktemp("finished")
    study = open_study(make_search(root, "s", config(3)))
    show_all(study, root)
    study.close()
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to work on."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def search(root: Path) -> Iterator[SearchStudy]:
    """The search, read again after each change."""
    with closing(open_study(root / "runs" / "s", read_only=True)) as study:
        yield study


def show_all(study: SearchStudy, root: Path) -> None:
    tracker = Tracker(study, root, print)
    for trial in study.trials():
        tracker.touch(trial.number)
    tracker.start()
    assert tracker.close(60), tracker.error


def continuations(root: Path) -> Continuations:
    """The continuations as they are on disk now."""
    with closing(open_study(root / "runs" / "s", read_only=True)) as study:
        found = continuations_of(study)
        assert found is not None
        return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint's."""
    return load_checkpoint(checkpoint_paths(folder)[0]).tensors


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether all bits are."""
    return all(torch.equal(left[name], right[name]) for name in left | right)


def folder(root: Path, label: str) -> Path:
    return root / "runs" / "s" / "checkpoints" / label


def perplexities(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    keys = ("epoch", "train_perplexity", "val_perplexity", "sample_text")
    return [tuple(row[key] for key in keys) for row in rows]


def test_training_on_is_one_long_training_bit_for_bit(root: Path, tmp_path: Path) -> None:
    make_search(tmp_path / "long", "s", config(7))
    with closing(open_study(tmp_path / "long" / "runs" / "s", read_only=True)) as long:
        for trial in long.trials():
            call(
                resume, "--root", root, "--trial", str(trial.number), "--from=latest", "--epochs=4"
            )
            on = continuations(root).trial(trial.number)
            label = f"trial-{trial.number:03d}"
            assert perplexities(rows_of(on)) == perplexities(rows_of(trial)[3:])
            resumed = weights(folder(root, f"{label}-resumed-001"))
            assert same(resumed, weights(long.trial_folder(trial.number)))


def test_it_says_perplexity_and_text_before_and_after(root: Path) -> None:
    done = call(resume, "--root", root, "--epochs", "2")
    assert done.returncode == 0
    for line in ("before: epoch 3", "after: epoch 5"):
        assert re.search(rf"^{line}, val_perplexity [0-9.]+\n  text: the", done.stdout, re.M)


def test_a_search_is_as_if_nothing_had_been_trained_on(root: Path) -> None:
    def state() -> Any:
        shutil.copytree(root / "runs" / "s", root / "runs" / "copy")
        with closing(open_study(root / "runs" / "copy")) as study:
            best = study.best()
            assert best is not None
            seen = (study.trials(), best.number, study.is_done(), study.ask().params)
        shutil.rmtree(root / "runs" / "copy")
        return seen

    before = state()
    assert call(resume, "--root", root, "--epochs", "2").returncode == 0
    assert state() == before


def test_it_is_a_child_run_that_names_what_it_continues(root: Path) -> None:
    call(resume, "--root", root, "--trial", "1", "--epochs", "2", "--from", "latest")
    client, children = runs(root)
    source, on = children["trial-001"], children["trial-001-resumed-001"]
    assert on.data.tags["continues"] == f"run {source.info.run_id}, trial-001, epoch 3"
    assert on.data.tags["mlflow.parentRunId"] == source.data.tags["mlflow.parentRunId"]
    assert "--trial 1 --epochs 2 --from latest" in on.data.tags["command"]
    assert on.data.tags["trial_seed"] == source.data.tags["trial_seed"]
    assert steps(client, on) == [4, 5]


def test_the_searchs_own_run_stays_as_it_was(root: Path) -> None:
    client, children = runs(root)
    parent_id = children["trial-000"].data.tags["mlflow.parentRunId"]
    before = client.get_run(parent_id)
    call(resume, "--root", root, "--epochs", "2")
    after = client.get_run(parent_id)
    assert after.data.to_dictionary() == before.data.to_dictionary()
    assert after.info.status == "FINISHED"


def test_mlflow_can_be_rebuilt_from_the_study(root: Path, tmp_path: Path) -> None:
    call(resume, "--root", root, "--epochs", "2")
    rebuilt = tmp_path / "rebuilt"
    rebuilt.mkdir()
    with closing(open_study(root / "runs" / "s")) as study:
        found = continuations_of(study)
        assert found is not None
        show_all(study, rebuilt)
        show_all(found, rebuilt)
    (client, before), (again, after) = runs(root), runs(rebuilt)
    assert before.keys() == after.keys()
    assert [steps(again, after[name]) for name in after] == [
        steps(client, before[name]) for name in after
    ]


def test_a_search_shown_again_has_no_run_twice(root: Path) -> None:
    call(resume, "--root", root, "--epochs", "1")
    with closing(open_study(root / "runs" / "s")) as study:
        show_all(study, root)
    assert len(runs(root)[1]) == 3


def test_course_can_be_changed(root: Path) -> None:
    change = ["--lr", "0.25", "--clip-threshold", "2", "--sampling", "random"]
    assert call(resume, "--root", root, "--trial=0", "--epochs=1", *change).returncode == 0
    params = continuations(root).trial(0).params
    assert (params["lr"], params["clip_threshold"], params["sampling"]) == (0.25, 2.0, "random")


def test_from_the_start_the_whole_trial_is_run_again(root: Path) -> None:
    done = call(resume, "--root", root, "--trial", "1", "--from", "start")
    assert (done.returncode, "before:" in done.stdout) == (0, False)
    again = continuations(root)
    assert perplexities(rows(root)) == perplexities(rows_of(again.search.trial(1)))
    original = weights(folder(root, "trial-001"))
    assert same(weights(folder(root, "trial-001-resumed-001")), original)


def test_a_run_id_trains_on_what_was_trained_on(root: Path) -> None:
    call(resume, "--root", root, "--trial", "1", "--from", "latest", "--epochs", "1")
    run_id = runs(root)[1]["trial-001-resumed-001"].info.run_id
    call(resume, "--root", root, "--run-id", run_id, "--from", "latest", "--epochs", "1")
    found = continuations(root)
    assert found.label(1) == "trial-001-resumed-002"
    assert [row["epoch"] for row in rows_of(found.trial(1))] == [5]
    said = call(sample, "--root", root, "--run-id", run_id, "--from", "latest").stderr
    assert "trial-001-resumed-001, epoch 4" in said


def test_the_best_checkpoint_stays_the_best_where_nothing_is_better(root: Path) -> None:
    done = call(resume, "--root", root, "--trial=1", "--epochs=2", "--lr=50", "--from=latest")
    with closing(open_study(root / "runs" / "s", read_only=True)) as study:
        best = study.checkpoint(study.trial(1))
    assert best is not None
    epoch = int(best.stem.removeprefix("epoch-"))
    assert f"best: epoch {epoch}, " in done.stdout
    own = folder(root, "trial-001-resumed-001") / best.with_suffix(".json").name
    assert same(load_checkpoint(own).tensors, load_checkpoint(best.with_suffix(".json")).tensors)


def test_divergence_is_a_failure_with_its_reason(root: Path) -> None:
    wild = ["--lr", "1e30", "--clip-threshold", "1e30", "--epochs", "2"]
    done = call(resume, "--root", root, *wild)
    assert done.returncode == 1
    assert "failed: train_perplexity = exp(" in done.stdout
    assert continuations(root).trial(0).state == TrialState.FAIL


def test_a_damaged_best_checkpoint_is_refused_by_name(root: Path, search: SearchStudy) -> None:
    path = search.checkpoint(search.trial(0))
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1])
    done = call(resume, "--root", root, "--trial", "0", "--epochs", "1")
    assert path.stem in done.stderr + done.stdout
    assert "damaged: its SHA-256 differs" in done.stderr + done.stdout


def test_a_continuation_without_a_whole_checkpoint_begins_again(root: Path) -> None:
    arguments = ["--root", str(root), "--trial", "0", "--from", "latest", "--epochs", "4"]
    call(resume, *arguments)
    whole = weights(folder(root, "trial-000-resumed-001"))
    set_back(root)
    for path in folder(root, "trial-000-resumed-001").glob("*.json"):
        path.write_text("{")
    done = call(resume, *arguments)
    assert "is damaged" in done.stdout and "going back to the beginning, epoch 3" in done.stdout
    assert same(whole, weights(folder(root, "trial-000-resumed-001")))
    assert [row["epoch"] for row in rows_of(continuations(root).trial(0))] == [4, 5, 6, 7]


def set_back(root: Path) -> None:
    """Cut the journal before the continuation's first report, as a kill there would leave it."""
    journal = root / "runs" / "s" / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if b'"epochs_00004"' in line)
    while b'"intermediate_value"' in lines[first - 1]:
        first -= 1
    journal.write_bytes(b"".join(lines[:first]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epochs", "0"], "--epochs"),
        (["--from", "worst"], "--from"),
        (["--epochs", "1", "--lr", "0"], "`lr` must be above 0 and finite, but got 0.0 (--lr)"),
        (["--epochs", "1", "--clip-threshold", "nan"], "but got nan (--clip-threshold)"),
        (["--epochs", "1", "--sampling", "none"], "--sampling"),
        (["--epochs", "1", "--trial", "2"], "but got 2 and it has 2, numbered from 0"),
        (["--epochs", "1", "--name", "t"], "start it: python search/run.py --name t"),
        (["--epochs", "1", "--run-id", "0" * 32], "must be a run in MLflow at sqlite:"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(root: Path, arguments: list[str], said: str) -> None:
    done = call(resume, "--root", root, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_the_run_of_a_whole_search_is_no_trial(root: Path) -> None:
    parent = next(iter(runs(root)[1].values())).data.tags["mlflow.parentRunId"]
    done = call(resume, "--root", root, "--epochs", "1", "--run-id", parent)
    assert "must be the run of a trial" in done.stderr


def test_with_no_search_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = call(resume, "--root", tmp_path, "--epochs", "1")
    assert done.returncode == 2
    assert "start one: python search/run.py --trials 64" in done.stderr


def test_another_text_is_refused_with_both_digests(root: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the moon shines on the river and the river shines on the moon " * 50)
    data = small_config().data.model_copy(update={"corpus": str(text)})
    make_search(root, "t", small_config().model_copy(update={"data": data}))
    text.write_text(text.read_text() + "the end")
    done = call(resume, "--root", root, "--name", "t", "--epochs", "1")
    assert done.returncode == 2
    assert done.stderr.count("SHA-256 ") == 2


def test_a_search_in_use_is_refused(root: Path) -> None:
    from search.folders import locked

    with locked(root / "runs" / "s"):
        done = call(resume, "--root", root, "--epochs", "1")
    assert done.returncode == 2
    assert "search 's' is in use by process" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_killed_again_and_again_it_ends_as_if_it_never_was(root: Path, finished: Path) -> None:
    arguments = ["--trial", "0", "--from", "latest", "--epochs", "400"]
    undisturbed = root / "undisturbed"
    shutil.copytree(finished, undisturbed)
    assert call(resume, "--root", undisturbed, *arguments).returncode == 0
    own = folder(root, "trial-000-resumed-001")
    for epoch in (3, 30, 120):
        signal_once(partial(has_saved, own, epoch), root, arguments, signal.SIGKILL)
    done = call(resume, "--root", root, *arguments)
    assert "trial-000-resumed-001 was interrupted; going on with it" in done.stdout
    assert perplexities(rows(root)) == perplexities(rows(undisturbed))
    label = "trial-000-resumed-001"
    assert same(weights(folder(root, label)), weights(folder(undisturbed, label)))
    client, children = runs(root)
    assert steps(client, children[label]) == list(range(4, 404))
    assert len(children) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_the_command_to_go_on(
    root: Path, number: signal.Signals, status: int
) -> None:
    arguments = ["--trial", "0", "--epochs", "50000"]
    ended, said = signal_once(
        lambda: "trial-000-resumed-001" in runs(root)[1], root, arguments, number
    )
    assert ended == status
    again = f"--name s --trial 0 --epochs 50000 --from best --root {root}\n"
    assert f"go on: python search/resume.py {again}" in said
    assert continuations(root).trial(0).state == TrialState.WAITING
    assert runs(root)[1]["trial-000-resumed-001"].info.status == "KILLED"


def signal_once(
    ready: Callable[[], bool], root: Path, arguments: list[str], number: signal.Signals
) -> tuple[int, str]:
    """Send a command a signal as soon as `ready`; give its status and its words."""
    line = command("resume.py", "--root", root, *arguments)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment())
    while process.poll() is None and not ready():
        time.sleep(0.02)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def has_saved(folder: Path, epoch: int) -> bool:
    """Whether there is a checkpoint of a later epoch."""
    return any(int(path.stem.removeprefix("epoch-")) > epoch for path in checkpoint_paths(folder))


def rows(root: Path) -> list[dict[str, Any]]:
    return rows_of(continuations(root).trial(0))


def runs(root: Path) -> tuple[MlflowClient, dict[str, Any]]:
    """MLflow, and the children of the search's run there, by name."""
    client = MlflowClient(tracking_uri=default_uri(root))
    experiment = client.get_experiment_by_name("rnn-search")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.`mlflow.parentRunId` LIKE '%'")
    assert len(found) == len({run.info.run_name for run in found})
    return client, {run.info.run_name: run for run in found}


def steps(client: MlflowClient, run: Any) -> list[int]:
    """The epochs that MLflow has of a run, as often as it has them."""
    return [metric.step for metric in client.get_metric_history(run.info.run_id, "val_perplexity")]
