"""Checkpoints: what was saved comes back; what is damaged is named; no pickle is ever read."""

import hashlib
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoint_path,
    checkpoint_paths,
    keep_checkpoints,
    load_checkpoint,
    save_checkpoint,
    whole_checkpoints,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.integers(0, 99999), JSON, st.lists(st.floats(width=32, allow_nan=False), max_size=9))
def test_what_was_saved_comes_back(
    tmp_path: Path, epoch: int, value: object, numbers: list[float]
) -> None:
    W = torch.tensor(numbers, dtype=torch.float32)
    loaded = load_checkpoint(save_checkpoint(tmp_path, Checkpoint(epoch, {"W": W}, {"x": value})))
    assert (loaded.epoch, loaded.state) == (epoch, {"x": value})
    assert torch.equal(loaded.tensors["W"], W)


def test_a_generators_state_comes_back(tmp_path: Path) -> None:
    rng = random.Random(3)
    path = save_checkpoint(tmp_path, Checkpoint(1, {}, {"rng": rng.getstate()}))
    version, internal, gauss = load_checkpoint(path).state["rng"]
    again = random.Random()
    again.setstate((version, tuple(internal), gauss))
    assert again.random() == rng.random()


def test_nothing_temporary_is_left(folder: Path) -> None:
    assert sorted(os.listdir(folder)) == ["epoch-00001.json", "epoch-00001.safetensors"]


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_every_flipped_byte_is_noticed_and_named(folder: Path, suffix: str) -> None:
    path = (folder / "epoch-00001").with_suffix(suffix)
    whole = path.read_bytes()
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        path.write_bytes(spoilt)
        with pytest.raises(CheckpointError, match=r"epoch-00001\.json"):
            load_checkpoint(folder / "epoch-00001.json")


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_cut_at_every_byte_is_noticed_and_named(folder: Path, suffix: str) -> None:
    path = (folder / "epoch-00001").with_suffix(suffix)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"epoch-00001\.json"):
            load_checkpoint(folder / "epoch-00001.json")


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_missing_half_is_named(folder: Path, suffix: str) -> None:
    (folder / "epoch-00001").with_suffix(suffix).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(folder / "epoch-00001.json")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(folder: Path, raw: bytes) -> None:
    (folder / "epoch-00001.json").write_bytes(raw)
    with pytest.raises(CheckpointError):
        load_checkpoint(folder / "epoch-00001.json")


@given(JSON)
def test_any_other_json_is_refused(folder: Path, value: object) -> None:
    (folder / "epoch-00001.json").write_text(json.dumps(value))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder / "epoch-00001.json")


class Malicious:
    """Writes a file as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_planted_pickle_is_never_read(folder: Path, suffix: str) -> None:
    trap = folder / "trap"
    (folder / "epoch-00001").with_suffix(suffix).write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder / "epoch-00001.json")
    assert not trap.exists()


def test_a_planted_pickle_with_right_digests_is_never_read(folder: Path) -> None:
    trap = folder / "trap"
    planted = pickle.dumps(Malicious(trap))
    (folder / "epoch-00001.safetensors").write_bytes(planted)
    forge(folder, tensors_sha256=hashlib.sha256(planted).hexdigest())
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(folder / "epoch-00001.json")
    assert not trap.exists()


def test_another_format_is_refused_by_its_number(folder: Path) -> None:
    forge(folder, format=2)
    with pytest.raises(CheckpointError, match="has format 2, not 1"):
        load_checkpoint(folder / "epoch-00001.json")


def test_numbers_that_json_cannot_hold_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_checkpoint(tmp_path, Checkpoint(1, {}, {"best": float("nan")}))


def test_whole_checkpoints_come_newest_first_and_damaged_ones_as_errors(folder: Path) -> None:
    for epoch in (2, 10):
        save_checkpoint(folder, Checkpoint(epoch, {}, {}))
    checkpoint_path(folder, 2).write_text("{")
    newest, damaged, oldest = whole_checkpoints(folder)
    assert isinstance(newest, Checkpoint) and newest.epoch == 10
    assert isinstance(damaged, CheckpointError) and "epoch-00002.json" in str(damaged)
    assert isinstance(oldest, Checkpoint) and oldest.epoch == 1


def test_only_the_kept_remain_and_no_half_written_file(folder: Path) -> None:
    for epoch in (2, 3):
        save_checkpoint(folder, Checkpoint(epoch, {}, {}))
    (folder / ".epoch-00004.safetensors").write_bytes(b"half")
    keep_checkpoints(folder, {1, 3})
    assert [path.stem for path in checkpoint_paths(folder)] == ["epoch-00003", "epoch-00001"]
    assert len(os.listdir(folder)) == 4


def test_an_interrupted_write_leaves_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, Checkpoint(2, {"W": torch.ones(9)}, {}))
    (only,) = whole_checkpoints(folder)
    assert isinstance(only, Checkpoint) and only.epoch == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one small checkpoint, of epoch 1."""
    shutil.rmtree(tmp_path)
    save_checkpoint(tmp_path, Checkpoint(1, {"b": torch.arange(3.0)}, {"seed": 7, "text": "é"}))
    return tmp_path


def forge(folder: Path, **changes: object) -> None:
    """Change a checkpoint's JSON and make its digest right again."""
    path = folder / "epoch-00001.json"
    content = {**json.loads(path.read_text()), **changes}
    del content["sha256"]
    digest = hashlib.sha256(dump(content)).hexdigest()
    path.write_bytes(dump({**content, "sha256": digest}))


def dump(content: object) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode()
