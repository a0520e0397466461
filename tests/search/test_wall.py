from pathlib import Path
from typing import Any

from search.config import build_config
from search.pictures import Scene
from search.study import SearchStudy
from search.wall import best_row, wall, wall_epochs
from tests.search.searches import HOSTILE, make_search, row


def wall_of(study: SearchStudy) -> dict[str, Any]:
    study.close()
    return wall(Scene(study), study.config)


def test_the_epochs_are_doublings_rungs_and_the_last() -> None:
    pruner = {"name": "successive_halving", "min_resource": 3, "reduction_factor": 2}
    config = build_config({"train": {"max_epochs": 20}, "search": {"pruner": pruner}})
    assert wall_epochs(config) == [1, 2, 3, 4, 6, 8, 12, 16, 20]


def test_every_trial_that_wrote_is_on_the_wall(tmp_path: Path) -> None:
    shown = wall_of(make_search(tmp_path / "s", 8))
    assert [trial["number"] for trial in shown["trials"]] == list(range(8))


def test_a_trial_has_text_at_each_epoch_that_it_reached(tmp_path: Path) -> None:
    for trial in wall_of(make_search(tmp_path / "s", 8))["trials"]:
        assert set(trial["texts"]) == {e for e in (1, 2, 4) if e <= trial["last_epoch"]} | {
            trial["best_epoch"]
        }


def test_the_wall_opens_where_half_of_the_trials_got(tmp_path: Path) -> None:
    study = make_search(tmp_path / "s", 2, max_epochs=4)
    study.ask()
    assert wall_of(study)["start"] == 4


def test_a_trial_that_wrote_nothing_yet_is_not_on_the_wall(tmp_path: Path) -> None:
    study = make_search(tmp_path / "s", 0)
    study.ask()
    assert wall_of(study) == {"epochs": [1, 2, 4], "start": "best", "trials": []}


def test_a_failed_trial_says_why(tmp_path: Path) -> None:
    trial = wall_of(make_search(tmp_path / "s", 4))["trials"][3]
    assert (trial["state"], trial["reason"]) == ("FAIL", "not finite")


def test_control_characters_are_shown_as_such(tmp_path: Path) -> None:
    texts = wall_of(make_search(tmp_path / "s", 1, text=HOSTILE))["trials"][0]["texts"]
    assert texts[1]["text"].endswith("\\x1b[31m")


def test_a_row_of_an_older_search_has_no_shares(tmp_path: Path) -> None:
    study = make_search(tmp_path / "s", 1)
    for kept in Scene(study).rows[0]:
        del kept["sample_copied"]
    assert wall_of(study)["trials"][0]["texts"][1]["copied"] is None


def test_of_equal_rows_the_earliest_is_the_best() -> None:
    assert best_row([row(1, 9), row(2, 8), row(3, 8)], "val_perplexity")["epoch"] == 2
