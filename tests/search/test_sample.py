"""Text from a checkpoint: the same as in training, the same again by its seed, alone on stdout."""

import json
import subprocess
from pathlib import Path

import pytest

from search import sample
from search.study import open_study, rows_of
from tests.search.trained import call, command, environment, make_search


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished search, `s`."""
    root = tmp_path_factory.mktemp("root")
    make_search(root, "s")
    return root


def test_stdout_is_the_text_alone(root: Path) -> None:
    line = command("sample.py", "--root", root, "--prefix", "the t", "--length", "20")
    done = subprocess.run(line, capture_output=True, text=True, env=environment(), timeout=60)
    text = done.stdout.replace("<unk>", "?")  # a symbol that a poor model may draw
    assert (done.returncode, len(text)) == (0, len("the t") + 20 + 1)


def test_greedy_text_is_the_one_that_training_logged(root: Path) -> None:
    done = call(sample, "--root", root, "--temperature", "0", "--length", "9")
    study = open_study(root / "runs" / "s", read_only=True)
    best = study.best()
    study.close()
    assert best is not None
    best_row = min(rows_of(best), key=lambda row: row["val_perplexity"])
    assert done.stdout == best_row["sample_text"] + "\n"


def test_the_seed_that_is_said_gives_the_same_text(root: Path) -> None:
    first = call(sample, "--root", root, "--prefix", "the t", "--length", "50")
    seed = first.stderr.rpartition("--seed ")[2].strip()
    again = call(sample, "--root", root, "--prefix", "the t", "--length", "50", "--seed", seed)
    assert first.stdout == again.stdout
    # A model that has hardly learnt may draw the unknown symbol, one like any other.
    assert len(first.stdout.replace("<unk>", "?")) == len("the t") + 50 + 1


def test_other_seeds_give_other_texts(root: Path) -> None:
    texts = {call(sample, "--root", root, "--seed", seed).stdout for seed in ("1", "2")}
    assert len(texts) == 2


def test_stderr_names_the_trial_and_its_perplexity(root: Path) -> None:
    done = call(sample, "--root", root, "--trial", "0", "--from", "latest", "--seed", "1")
    assert done.stderr.startswith("search s, trial-000, epoch 3, val_perplexity ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prefix", "Ünd"], "got 'Ü'; known: ' e"),
        (["--prefix", ""], "at least one character, but got ''"),
        (["--temperature", "-1"], "`temperature >= 0` must hold, but got -1.0"),
        (["--temperature", "nan"], "but got nan"),
        (["--length", "-1"], "--length"),
        (["--trial", "7"], "but got 7 and it has 2, numbered from 0"),
        (["--trial", "1", "--run-id", "x"], "`--trial` or `--run-id`"),
        (["--name", "other"], "start it: python search/run.py --name other"),
        (["--name", "../s"], "`--name` must be letters"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(root: Path, arguments: list[str], said: str) -> None:
    done = call(sample, "--root", root, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_without_a_search_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = call(sample, "--root", tmp_path)
    assert done.returncode == 2
    assert "start one: python search/run.py" in done.stderr


def test_an_altered_checkpoint_is_named_and_not_used(tmp_path: Path) -> None:
    folder = make_search(tmp_path, "s") / "checkpoints" / "trial-001"
    latest, best = sorted(folder.glob("*.json"), reverse=True)
    if json.loads(latest.read_text())["state"]["best"]["epoch"] == 3:
        best = latest
    best.write_bytes(best.read_bytes().replace(b'"seed"', b'"sead"'))
    done = call(sample, "--root", tmp_path, "--trial", "1", "--seed", "1")
    assert f"{best} is damaged" in done.stderr


def test_a_search_that_still_runs_is_only_read(tmp_path: Path) -> None:
    journal = make_search(tmp_path, "s") / "study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5')  # what a reader may see of a record that is being written
    before = journal.read_bytes()
    assert call(sample, "--root", tmp_path).returncode == 0
    assert journal.read_bytes() == before
