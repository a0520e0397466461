"""A trial's training: cut off anywhere it goes on bit for bit; damage is named, passed over."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data import Corpus
from model.checkpoint import checkpoint_paths, load_checkpoint
from search.config import build_config
from search.messages import Row, TrainingData, TrialSpec
from search.training import Training

CLOCKS = ("time", "train_s", "tokens_per_s")
SAMPLINGS = pytest.mark.parametrize("sampling", ["random", "sequential"])


@SAMPLINGS
@settings(max_examples=12)
@given(st.lists(st.sampled_from(["told", "lost"]), max_size=5))
def test_a_trial_killed_at_any_report_goes_on_bit_for_bit(
    tmp_path: Path, text: TrainingData, sampling: str, kills: list[str]
) -> None:
    shutil.rmtree(tmp_path)
    expected, params = straight(tmp_path / "straight", text, sampling)
    told: dict[int, Row] = {}
    spec = make_spec(tmp_path / "killed", sampling)
    for kill in kills:  # a worker that dies after its report arrived, or before
        report = Training(spec, text).advance()
        if kill == "told":
            take(told, report.rows)
    training = Training(spec, text)
    while not (report := training.advance()).done:
        take(told, report.rows)
    take(told, report.rows)
    assert list(told.values()) == expected
    assert all(torch.equal(a, b) for a, b in zip(training.net.params, params, strict=True))


def test_reports_come_at_the_rungs_and_at_the_end(tmp_path: Path, text: TrainingData) -> None:
    training = Training(make_spec(tmp_path), text)
    reports = [training.advance() for _ in range(4)]
    assert [[row["epoch"] for row in r.rows] for r in reports] == [[1, 2], [3], [4, 5, 6], [7, 8]]
    assert [report.done for report in reports] == [False, False, False, True]


def test_reports_come_after_each_epoch_that_takes_the_interval(
    tmp_path: Path, text: TrainingData
) -> None:
    training = Training(make_spec(tmp_path, report_every_s=0.0), text)
    assert [len(training.advance().rows) for _ in range(8)] == [1] * 8


def test_a_row_holds_the_epochs_result_and_its_time(tmp_path: Path, text: TrainingData) -> None:
    first, second = Training(make_spec(tmp_path), text).advance().rows
    assert first["sample_text"].startswith("time traveller")
    assert 1 < second["val_perplexity"] < first["val_perplexity"] < 30
    assert first["time"] <= second["time"]


def test_the_best_and_the_latest_checkpoint_are_kept_and_two_at_least(
    tmp_path: Path, text: TrainingData
) -> None:
    training = Training(make_spec(tmp_path, lr=30.0, report_every_s=0.0), text)
    for _ in range(8):
        checkpoints = training.advance().checkpoints
        kept = [int(path.stem[6:]) for path in checkpoint_paths(tmp_path)]
        assert set(checkpoints.values()) <= set(kept)
        assert len(kept) == min(2, training.epoch)
    assert training.best["epoch"] == checkpoints["best"]


def test_the_best_checkpoint_has_the_best_epochs_parameters(
    tmp_path: Path, text: TrainingData
) -> None:
    training = Training(make_spec(tmp_path), text)
    report = training.advance()
    best = load_checkpoint(tmp_path / f"epoch-{report.checkpoints['best']:05d}.json")
    assert best.state["best"]["value"] == min(row["val_perplexity"] for row in report.rows)
    assert best.state["corpus"] == {"name": "bundled", "sha256": text.sha256}


@SAMPLINGS
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "pickle", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    tmp_path: Path, text: TrainingData, sampling: str, suffix: str, damage: str
) -> None:
    spec = make_spec(tmp_path / "damaged", sampling)
    expected, _ = straight(tmp_path / "straight", text, sampling)
    training = Training(spec, text)
    told: dict[int, Row] = {}
    for _ in range(3):
        take(told, training.advance().rows)
    newest, before = checkpoint_paths(spec.folder)
    spoil(newest.with_suffix(suffix), damage)
    training = Training(spec, text)
    if (suffix, damage) != (".json", "gone"):  # without it there is no checkpoint to name
        named, going_on = training.notices
        assert str(newest) in named
        assert going_on == f"trial 3: going on from epoch {int(before.stem[6:])} instead"
    while not (report := training.advance()).done:
        take(told, report.rows)
    take(told, report.rows)
    assert list(told.values()) == expected


def test_without_any_whole_checkpoint_the_trial_starts_again_and_says_so(
    tmp_path: Path, text: TrainingData
) -> None:
    spec = make_spec(tmp_path)
    expected = without_clocks(Training(spec, text).advance().rows)
    for path in checkpoint_paths(tmp_path):
        spoil(path, "cut")
    report = Training(spec, text).advance()
    assert report.notices[-1] == "trial 3: no checkpoint fits; starting again"
    assert without_clocks(report.rows) == expected


def test_another_trials_checkpoint_is_not_taken(tmp_path: Path, text: TrainingData) -> None:
    Training(make_spec(tmp_path, lr=2.0), text).advance()
    report = Training(make_spec(tmp_path), text).advance()
    assert report.notices == ["trial 3: no checkpoint fits; starting again"]
    assert report.rows[0]["epoch"] == 1
    assert all(load_checkpoint(p).state["params"]["lr"] == 1.0 for p in checkpoint_paths(tmp_path))


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path, text: TrainingData) -> None:
    spec = make_spec(tmp_path)
    training = Training(spec, text)
    rows = training.advance().rows
    (tmp_path / ".epoch-00003.json").write_text("{")
    (tmp_path / "epoch-00003.safetensors").write_text("")
    training = Training(spec, text)
    assert training.notices == [] and training.epoch == 2
    assert training.advance().rows == rows
    training.advance()
    assert not (tmp_path / ".epoch-00003.json").exists()


def test_a_diverging_trial_says_why_and_keeps_what_it_had(
    tmp_path: Path, text: TrainingData
) -> None:
    report = Training(make_spec(tmp_path, lr=1e38, clip_threshold=1e38), text).advance()
    assert report.done and report.rows == [] and report.checkpoints == {}
    assert report.diverged is not None and "is not finite in epoch 1" in report.diverged


def test_a_finished_trial_that_was_not_told_is_told_again(
    tmp_path: Path, text: TrainingData
) -> None:
    spec = make_spec(tmp_path, max_epochs=2)
    rows = Training(spec, text).advance().rows
    again = Training(spec, text)
    report = again.advance()
    assert report.rows == rows and report.done
    assert again.advance().done


def test_the_same_trial_gives_the_same_numbers_whatever_ran_before(
    tmp_path: Path, text: TrainingData
) -> None:
    expected, _ = straight(tmp_path / "first", text, "random")
    torch.manual_seed(99)
    straight(tmp_path / "other", text, "sequential")
    assert straight(tmp_path / "again", text, "random")[0] == expected


def test_without_a_held_out_part_there_is_no_validation(
    tmp_path: Path, text: TrainingData
) -> None:
    whole = TrainingData(text.name, text.sha256, text.tokens, len(text.tokens), text.idx_to_token)
    report = Training(make_spec(tmp_path, metric="train_perplexity"), whole).advance()
    assert {row["val_perplexity"] for row in report.rows} == {None}
    assert report.checkpoints == {"best": 2, "latest": 2}


@pytest.fixture(scope="module")
def text(bundled: Corpus) -> TrainingData:
    """The first 900 tokens of the bundled text, the last 100 of them held out."""
    return TrainingData(
        "bundled", bundled.sha256, bundled.tokens[:900], 800, bundled.vocab.idx_to_token
    )


def make_spec(
    folder: Path,
    sampling: str = "sequential",
    lr: float = 1.0,
    clip_threshold: float = 1.0,
    metric: str = "val_perplexity",
    report_every_s: float = 1e9,
    max_epochs: int = 8,
) -> TrialSpec:
    """Trial 3: 8 epochs of a tiny network, reported at epochs 2, 3, 6 and at the end."""
    settings = {"batch_size": 8, "num_steps": 10, "max_epochs": max_epochs, "num_preds": 5}
    train = build_config({"train": settings}).dump()["train"]
    params = {
        "hidden_size": 8,
        "lr": lr,
        "clip_threshold": clip_threshold,
        "sampling": sampling,
    }
    rungs = frozenset({2, 3, 6})
    return TrialSpec(3, params, 7, train, metric, rungs, folder, report_every_s=report_every_s)


def straight(folder: Path, text: TrainingData, sampling: str) -> tuple[list[Row], list[Tensor]]:
    """All rows, and the parameters at the end, of a trial that nothing disturbs."""
    training = Training(make_spec(folder, sampling), text)
    rows = [row for _ in range(4) for row in training.advance().rows]
    return without_clocks(rows), training.net.params


def take(told: dict[int, Row], rows: list[Row]) -> None:
    """Take rows as the study does: an epoch that is known already is passed over."""
    for row in without_clocks(rows):
        if row["epoch"] == len(told) + 1:
            told[row["epoch"]] = row


def without_clocks(rows: list[Row]) -> list[Row]:
    return [{key: row[key] for key in row if key not in CLOCKS} for row in rows]


def spoil(path: Path, damage: str) -> None:
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "cut":
        path.write_bytes(content[:-9])
    elif damage == "pickle":
        path.write_bytes(pickle.dumps({"W_xh": [0.0]}))
    else:
        path.unlink()
