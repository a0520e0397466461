"""What the driver tells a worker, and what a worker tells the driver; plain values, no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclass(frozen=True)
class TrialSpec:
    """What one trial is to do, in plain values that any process can be sent.

    seed: the trial's own. train: the config's `train` section. rungs: epochs at whose end a
    report must be made. report_every_s: the longest training goes on without one.
    """

    number: int
    params: dict[str, Any]
    seed: int
    train: dict[str, Any]
    metric: str
    rungs: frozenset[int]
    folder: Path
    num_threads: int = 1
    report_every_s: float = 1.0


@dataclass(frozen=True)
class TrainingData:
    """The text as every trial gets it: tokens, where the held-out part begins, what it is."""

    name: str
    sha256: str
    tokens: np.ndarray
    num_train: int
    idx_to_token: list[str]


@dataclass
class Report:
    """What a worker tells about some epochs.

    rows: one a new epoch, EpochResult's fields, `sample_repetition`, `sample_copied` and `time`
    (Unix, in ms). done: the trial trains no further. diverged: why it failed, or None.
    checkpoints: the epochs of its `best` and `latest`.
    notices: lines for the person, about checkpoints that could not be used. computed: the `step`
    and the `device` that do the work.
    """

    rows: list[Row] = field(default_factory=list)
    done: bool = False
    diverged: str | None = None
    checkpoints: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    computed: dict[str, str] = field(default_factory=dict)
