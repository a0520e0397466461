"""The terminal's picture, drawn on a console of our own from a real study."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from search.config import build_config
from search.messages import Report, Row
from search.study import SearchStudy, create_study
from search.view import View, duration, printable, sparkline


def row(epoch: int, val_perplexity: float, sample_text: str = "time traveller") -> Row:
    """An epoch as a worker reports it."""
    return {
        "epoch": epoch,
        "train_perplexity": val_perplexity,
        "val_perplexity": val_perplexity,
        "train_s": 1.0,
        "sample_text": sample_text,
    }


StudyWith = Callable[..., SearchStudy]


@pytest.fixture
def study_with(tmp_path: Path) -> Iterator[StudyWith]:
    """Makes a search whose trials have reported the epochs given, and run on."""
    config = build_config({"search": {"trials": 64, "pruner": "nop"}})
    study = create_study(tmp_path, config, {})

    def make(*trials: list[Row]) -> SearchStudy:
        for number, rows in enumerate(trials):
            study.ask()
            study.report(number, Report(rows=rows))
        return study

    yield make
    study.close()


def drawn(study: SearchStudy) -> str:
    """What a view of it shows on 80 columns."""
    console = Console(file=io.StringIO(), width=80, height=24)
    console.print(View(study, console, 2)._draw())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_picture_fits_into_80_columns(study_with: StudyWith) -> None:
    shown = drawn(study_with([row(n, 20 / n) for n in range(1, 30)], [row(1, 9.0)]))
    assert "val_perplexity" in shown and "clip_threshold" in shown
    assert "random" in shown or "sequential" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_best_so_far_is_shown_with_its_text(study_with: StudyWith) -> None:
    shown = drawn(study_with([row(1, 9.0, "poor")], [row(1, 5.5, "rich text")]))
    assert "best val_perplexity 5.5 by trial 1" in shown
    assert "rich text" in shown


def test_a_failed_trial_is_never_the_best(study_with: StudyWith) -> None:
    study = study_with([row(1, 9.0)], [row(1, 5.5)])
    study.finish(1, TrialState.FAIL, "diverged")
    assert "by trial 0" in drawn(study)


def test_a_text_can_neither_style_nor_steer_the_terminal(study_with: StudyWith) -> None:
    assert "[red]\\x1b[2J\\x07end" in drawn(study_with([row(1, 9.0, "[red]\x1b[2J\x07end")]))


def test_a_curve_falls_from_left_to_right() -> None:
    assert sparkline([16.0, 8.0, 4.0, 2.0], 8) == "█▆▃▁"
    assert len(sparkline([float(n) for n in range(1, 500)], 8)) == 8
    assert sparkline([], 8) == ""
    assert sparkline([5.0], 8) == "▁"


def test_durations_read_like_clocks() -> None:
    assert [duration(s) for s in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]


def test_control_characters_are_shown_as_such() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
