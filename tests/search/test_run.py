"""`python search/run.py`, as a person runs it."""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.search.processes import ROOT, SMOKE, finish, shown, start, trials, wait_for

RUN = str(ROOT / "search" / "run.py")


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder and wait for it."""
    return subprocess.run(
        [sys.executable, RUN, *arguments], cwd=cwd, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "0"], "search.trials"),
        (["--trials", "many"], "--trials"),
        (["--bogus"], "--bogus"),
        (["--set", "train.batchsize=3"], "did you mean 'batch_size'"),
        (["--set", "space.lr={low: 2, high: 1}"], "`low < high`"),
        (["--set", "space.lr={low: 0, high: 1}"], "above 0"),
        (["--set", "search.sampler=annealing"], "tpe, random"),
        (["--set", "search.pruner={name: median, patience: 3}"], "'patience'"),
        (["--set", "data.corpus=missing.txt"], "missing.txt"),
        (["--set", "data.max_tokens=100"], "one batch"),
        (["--set", "train.prefix='012'"], "train.prefix"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--name", "../elsewhere"], "--name"),
        (["--name", ".."], "--name"),
        (["--resume"], "python search/run.py --trials 64"),
    ],
)
def test_wrong_input_is_one_line_and_status_2_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = run(tmp_path, "--set=data.corpus=bundled", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00a", b"123 456\n"])
def test_a_corpus_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    done = run(tmp_path, "--set=data.corpus=text.txt")
    assert done.returncode == 2 and "data.corpus" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A small search, done, and what it printed."""
    root = tmp_path_factory.mktemp("searched")
    yield root, finish(start(root, f"--config={SMOKE}", "--name=smoke"))


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_the_json_is_what_the_study_says(searched: tuple[Path, dict[str, Any]]) -> None:
    root, summary = searched
    found = trials(root / "runs" / "smoke")
    states = [trial.state.name for trial in found]
    best = found[summary["best"]["trial"]]
    assert summary["trials"] == {
        state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
    }
    assert len(found) == 4
    assert summary["best"]["params"] == best.params
    assert summary["best"]["val_perplexity"] == best.value
    assert best.value == min(t.value for t in found if t.state.name == "COMPLETE" and t.value)
    assert Path(summary["best"]["checkpoint"]).is_file()
    assert summary["best"]["sample_text"].startswith("time traveller")


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_mlflow_shows_what_the_study_says(searched: tuple[Path, dict[str, Any]]) -> None:
    root, _ = searched
    runs = shown(root)
    assert runs.pop("smoke")[0] == "FINISHED"
    for trial in trials(root / "runs" / "smoke"):
        status, state, perplexities = runs.pop(f"trial-{trial.number:03d}")
        assert (status, state) == ("FINISHED", trial.state.name)
        assert [step for step, _ in perplexities] == list(trial.intermediate_values)
        assert min(value for _, value in perplexities) == trial.value
    assert not runs


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_more_trials_are_added_to_a_search_that_is_done(
    searched: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    root, _ = searched
    before = [trial.params for trial in trials(root / "runs" / "smoke")]
    summary = finish(start(root, "--name=smoke", "--trials=6"))
    assert sum(summary["trials"].values()) == 6
    assert [trial.params for trial in trials(root / "runs" / "smoke")][:4] == before


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_what_the_numbers_mean_cannot_change_in_a_search_that_goes_on(
    searched: tuple[Path, dict[str, Any]],
) -> None:
    done = run(searched[0], "--name=smoke", "--set=train.batch_size=16")
    assert done.returncode == 2 and "train.batch_size" in done.stderr


LONG = (f"--config={SMOKE}", "--name=long", "--set=train.max_epochs=100000")


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_search_saves_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    process = start(tmp_path, *LONG, "--set=search.pruner=nop")
    wait_for(process, "epochs_", tmp_path / "runs" / "long" / "study.journal")

    second = run(tmp_path, "--name=long")
    assert second.returncode == 2 and f"process {process.pid}" in second.stderr

    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == status, stderr
    assert "--name long" in stderr
    summary = json.loads(stdout)
    assert summary["trials"]["RUNNING"] == 2 and math.isfinite(summary["best"]["val_perplexity"])
    assert {trial.state.name for trial in trials(tmp_path / "runs" / "long")} == {"WAITING"}
    assert {run[0] for run in shown(tmp_path).values()} == {"KILLED"}
