"""Checkpoints: safetensors for tensors, JSON beside it for the rest; no pickle is ever read.

`epoch-00012.json` is written last and holds the digest of `epoch-00012.safetensors` and its own:
a pair that was cut short, altered or half written is noticed, named and never loaded.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that must not be loaded; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on as if it had never stopped.

    epoch: the last one done. tensors: the parameters by name. state: everything else, as JSON
    holds it (config, vocabulary, corpus digest, random generators, best so far).
    """

    epoch: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and return the path of its JSON file. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder, checkpoint.epoch)
    tensors = safetensors.torch.save(checkpoint.tensors)
    _replace(path.with_suffix(".safetensors"), tensors)
    content = {
        "format": FORMAT,
        "epoch": checkpoint.epoch,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "state": checkpoint.state,
    }
    _replace(path, _dump({**content, "sha256": hashlib.sha256(_dump(content)).hexdigest()}))
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read `epoch-N.json` and its tensors. Raises CheckpointError unless both are whole."""
    try:
        text, tensors = path.read_bytes(), path.with_suffix(".safetensors").read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    try:
        content = json.loads(text)
        digest = content.pop("sha256")
        whole = text == _dump({**content, "sha256": digest})
        whole &= digest == hashlib.sha256(_dump(content)).hexdigest()
        whole &= content["tensors_sha256"] == hashlib.sha256(tensors).hexdigest()
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error!r}") from error
    if not whole:
        raise CheckpointError(f"checkpoint {path} is damaged: its SHA-256 differs")
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {content.get('format')!r}, not {FORMAT}"
        )
    try:
        return Checkpoint(content["epoch"], safetensors.torch.load(tensors), content["state"])
    except (KeyError, safetensors.SafetensorError) as error:  # right digests, but not our work
        raise CheckpointError(f"checkpoint {path} is damaged: {error!r}") from error


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """Where the checkpoint of an epoch lies."""
    return folder / f"epoch-{epoch:05d}.json"


def checkpoint_paths(folder: Path) -> list[Path]:
    """The JSON files of the checkpoints in a folder, newest first; nothing is read."""
    return sorted(folder.glob("epoch-*.json"), reverse=True)


def keep_checkpoints(folder: Path, epochs: set[int]) -> None:
    """Remove every checkpoint of other epochs, and what an interrupted write left behind."""
    kept = {checkpoint_path(folder, epoch).stem for epoch in epochs}
    for path in folder.iterdir():
        if path.stem not in kept:
            path.unlink(missing_ok=True)


def whole_checkpoints(folder: Path) -> Iterator[Checkpoint | CheckpointError]:
    """The checkpoints of a folder, newest first; a damaged one as the error that says so."""
    for path in checkpoint_paths(folder):
        try:
            yield load_checkpoint(path)
        except CheckpointError as error:
            yield error


def _dump(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()


def _replace(path: Path, content: bytes) -> None:
    """Write to a temporary name, make it durable, rename: a reader sees all of it or nothing."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
