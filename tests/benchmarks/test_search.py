"""Whole searches, start to exit: against the other ways, and what they cost beside training."""

import statistics
from pathlib import Path
from typing import Any

import pytest
from conftest import Figures
from race import HERE, race, run_json, run_ours
from timing import show

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]

WAYS = ("ours", "plain", "stock")
NUM_ROUNDS = 3  # each with a seed of its own


@pytest.mark.parametrize("work", ["A", "B", "C"])
def test_work_against_the_other_ways(work: str, figures: Figures) -> None:
    rounds = [{way: race(way, work, seed) for way in WAYS} for seed in range(NUM_ROUNDS)]
    medians = {way: _medians([found[way] for found in rounds]) for way in WAYS}
    seconds = {way: medians[way]["wall_s"] for way in WAYS}
    rows = [
        {
            "way": way,
            "wall_s": seconds[way],
            "epochs": medians[way]["epochs"],
            "best": medians[way]["best"],
            "ours is times as fast": seconds[way] / seconds["ours"],
        }
        for way in WAYS
    ]
    show(f"Work {work}, start to exit, medians of {NUM_ROUNDS} interleaved rounds", rows)
    figures[work] = {"medians": rows, "rounds": rounds}


def test_start_and_time_in_training_of_the_default_search(figures: Figures) -> None:
    found = run_ours()
    show("The default search", [found])
    figures["default"] = found


def test_cost_of_a_report(figures: Figures, tmp_path: Path) -> None:
    command = [f"{HERE / 'costs.py'}", "--config", f"{HERE / 'reports.yaml'}"]
    found, _ = run_json(command, str(tmp_path))
    show("The driver's CPU for a report, and the share of wall time that waits on MLflow", [found])
    figures["report"] = found


def _medians(found: list[dict[str, Any]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in found) for key in found[0]}
