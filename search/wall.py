"""The text wall: what every trial wrote, at equal epochs, in plain values for the page."""

from typing import Any

from optuna.trial import FrozenTrial

from search.config import SearchConfig
from search.messages import Row
from search.pictures import Scene, state_of
from search.samplers import rungs
from search.view import printable

ENOUGH = 0.5  # of the trials: the wall opens at the last epoch that as many reached


def wall(scene: Scene, config: SearchConfig) -> dict[str, Any]:
    """Every trial that wrote something, with its text at the wall's epochs and at its best.

    epochs: those to choose from. start: the one to begin with, or "best". trials: each a number,
    state, params, reason, last epoch, best epoch and `texts` by epoch: value, repetition, copied
    (shares, or None where the study has none) and text without control characters.
    """
    epochs = wall_epochs(config)
    trials = [_trial(scene, trial, epochs) for trial in scene.trials if scene.rows[trial.number]]
    reached = [
        epoch
        for epoch in epochs
        if sum(trial["last_epoch"] >= epoch for trial in trials) >= max(1, ENOUGH * len(trials))
    ]
    return {"epochs": epochs, "start": max(reached, default="best"), "trials": trials}


def wall_epochs(config: SearchConfig) -> list[int]:
    """1, 2, 4, ... and the last; and the pruner's rungs, where most trials end."""
    last = config.train.max_epochs
    doublings = {2**i for i in range(last.bit_length())}
    return sorted(doublings | rungs(config) | {last})


def best_row(rows: list[Row], metric: str) -> Row:
    """The row with the lowest value, the earliest of equals."""
    return min(rows, key=lambda row: (row[metric], row["epoch"]))


def _trial(scene: Scene, trial: FrozenTrial, epochs: list[int]) -> dict[str, Any]:
    rows = scene.rows[trial.number]
    best = best_row(rows, scene.metric)
    shown = {*epochs, best["epoch"]}
    return {
        "number": trial.number,
        "state": state_of(trial),
        "params": trial.params,
        "reason": printable(trial.user_attrs.get("reason", "")),
        "last_epoch": rows[-1]["epoch"],
        "best_epoch": best["epoch"],
        "texts": {
            row["epoch"]: {
                "value": row[scene.metric],
                "repetition": row.get("sample_repetition"),
                "copied": row.get("sample_copied"),
                "text": printable(row["sample_text"]),
            }
            for row in rows
            if row["epoch"] in shown
        },
    }
