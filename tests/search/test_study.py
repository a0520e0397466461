"""The study: every trial's way through ask, report, prune, finish and interrupt."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.config import PARAMS, ConfigError, build_config
from search.messages import Report, Row
from search.samplers import seed_for
from search.study import (
    JOURNAL,
    SearchStudy,
    count_states,
    create_study,
    open_study,
    rows_of,
    value_of,
)

PRUNER = {"name": "successive_halving", "min_resource": 2, "reduction_factor": 2}


def test_a_proposal_has_every_parameter_and_a_seed_of_its_own(study: SearchStudy) -> None:
    first, second = study.ask(), study.ask()
    assert (first.number, second.number) == (0, 1)
    assert set(first.params) == set(PARAMS)
    assert first.seed == seed_for("trial", 0, 0) != second.seed


def test_a_new_study_knows_its_config_and_attributes(study: SearchStudy, tmp_path: Path) -> None:
    study.set_attr("mlflow_run_id", "abc")
    study.close()
    again = open_study(tmp_path)
    assert again.config == study.config
    assert (again.name, again.attrs["corpus"]) == (tmp_path.name, "x")
    assert again.attrs["mlflow_run_id"] == "abc"
    again.close()


def test_an_attribute_that_is_there_is_not_written_again(study: SearchStudy) -> None:
    study.set_attr("key", "value")
    size = study.journal.path.stat().st_size
    study.set_attr("key", "value")
    assert study.journal.path.stat().st_size == size


def test_a_folder_without_a_whole_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no study\.journal"):
        open_study(tmp_path)
    for content in (b"", b"{}\n", b"[]\n", b"\xff\n", b'{"op_code": 99}\n', b"\x80\x04K.\n"):
        (tmp_path / JOURNAL).write_bytes(content)
        with pytest.raises(ConfigError, match="holds no whole search"):
            open_study(tmp_path)


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_study_with_a_spoilt_byte_opens_or_is_refused(
    tmp_path: Path, place: int, byte: int
) -> None:
    (tmp_path / JOURNAL).unlink(missing_ok=True)
    study = make_study(tmp_path)
    run(study, 9.0, 8.0)
    study.close()
    content = bytearray((tmp_path / JOURNAL).read_bytes())
    content[place % len(content)] = byte
    (tmp_path / JOURNAL).write_bytes(content)
    try:
        open_study(tmp_path).close()
    except ConfigError as error:
        assert "holds no whole search" in str(error)


def test_a_report_stores_the_lowest_value_so_far_and_every_row(study: SearchStudy) -> None:
    study.ask()
    study.report(0, Report(rows=rows(9.0, 7.0, 8.0)))
    trial = study.trial(0)
    assert trial.intermediate_values == {1: 9.0, 2: 7.0, 3: 7.0}
    assert rows_of(trial) == rows(9.0, 7.0, 8.0)
    assert value_of(trial) == 7.0


def test_a_done_trial_is_complete_with_its_lowest_value(study: SearchStudy) -> None:
    study.ask()
    assert study.report(0, Report(rows=rows(9.0, 7.0, 8.0), done=True))
    assert (study.trial(0).state, study.trial(0).value) == (TrialState.COMPLETE, 7.0)


def test_a_poor_trial_is_pruned_at_a_rung_and_later_rows_are_passed_over(
    study: SearchStudy,
) -> None:
    run(study, 5.0, 4.0, 3.0)
    study.ask()
    assert study.report(1, Report(rows=rows(9.0, 9.0, 1.0, 1.0), done=True))
    trial = study.trial(1)
    assert (trial.state, trial.value, trial.last_step) == (TrialState.PRUNED, 9.0, 2)
    assert [row["epoch"] for row in rows_of(trial)] == [1, 2]


def test_the_last_epoch_is_not_put_to_the_pruner(study: SearchStudy) -> None:
    config = build_config(
        {"train": {"max_epochs": 2}, "search": {"pruner": {"name": "threshold", "upper": 5.0}}}
    )
    strict = SearchStudy(study.study, study.journal, config)
    strict.ask()
    strict.report(0, Report(rows=[{"epoch": 2, "val_perplexity": 9.0}], done=True))
    assert strict.trial(0).state == TrialState.COMPLETE


def test_a_diverged_trial_is_fail_with_the_reason(study: SearchStudy) -> None:
    study.ask()
    assert study.report(0, Report(rows=rows(9.0), done=True, diverged="nan in epoch 2"))
    trial = study.trial(0)
    assert (trial.state, trial.value) == (TrialState.FAIL, None)
    assert trial.user_attrs["reason"] == "nan in epoch 2"
    assert trial.intermediate_values == {1: 9.0}


def test_a_trial_that_diverges_at_once_is_fail_without_values(study: SearchStudy) -> None:
    study.ask()
    study.report(0, Report(done=True, diverged="nan in epoch 1"))
    assert study.trial(0).state == TrialState.FAIL
    assert study.best() is None


def test_epochs_that_are_known_are_passed_over(study: SearchStudy) -> None:
    study.ask()
    study.report(0, Report(rows=rows(9.0, 8.0)))
    study.report(0, Report(rows=rows(1.0, 1.0, 7.0)))
    assert study.trial(0).intermediate_values == {1: 9.0, 2: 8.0, 3: 7.0}
    assert [row["epoch"] for row in rows_of(study.trial(0))] == [1, 2, 3]


@given(
    st.lists(
        st.lists(st.floats(1, 1e308), max_size=5).map(lambda values: rows(*values)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([(True, None), (False, None), (True, "diverged")]),
)
def test_whatever_is_reported_the_study_holds_no_nan_and_no_inf(
    tmp_path: Path, reports: list[list[Row]], end: tuple[bool, str | None]
) -> None:
    (tmp_path / JOURNAL).unlink(missing_ok=True)
    study = make_study(tmp_path)
    study.ask()
    ended = study.report(0, Report(rows=rows(1e308)))
    for report in reports:
        ended = ended or study.report(0, Report(rows=report))
    if not ended:
        study.report(0, Report(done=end[0], diverged=end[1]))
    trial = study.trial(0)
    values = [*trial.intermediate_values.values(), trial.value or 0.0]
    assert all(math.isfinite(value) for value in values)
    assert [row["epoch"] for row in rows_of(trial)] == list(trial.intermediate_values)
    study.close()


def test_an_interrupted_trial_is_asked_for_again_with_what_it_was(study: SearchStudy) -> None:
    first, second = study.ask(), study.ask()
    study.report(1, Report(rows=rows(9.0)))
    assert study.interrupt() == [0, 1]
    assert [study.ask(), study.ask()] == [first, second]
    study.report(1, Report(rows=[{"epoch": 2, "val_perplexity": 8.0}]))
    assert study.trial(1).intermediate_values == {1: 9.0, 2: 8.0}


def test_a_killed_sessions_trials_wait_for_the_next(study: SearchStudy, tmp_path: Path) -> None:
    first = study.ask()
    study.report(0, Report(rows=rows(9.0, 8.0), checkpoints={"best": 2, "latest": 2}))
    study.close()
    again = open_study(tmp_path)
    assert again.trials(TrialState.RUNNING)[0].number == 0
    assert again.interrupt() == [0]
    assert again.ask() == first
    again.report(0, Report(rows=rows(0.0, 0.0, 7.0)))
    assert again.trial(0).intermediate_values == {1: 9.0, 2: 8.0, 3: 7.0}
    again.close()


@pytest.mark.parametrize(
    ("sampler", "num_trials"),
    [("tpe", 14), ("random", 5), ("qmc", 5), ({"name": "gp", "n_startup_trials": 2}, 4)],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_suggestion_depends_on_the_study_alone(
    tmp_path: Path, sampler: object, num_trials: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    config = build_config({"search": {"sampler": sampler}})
    study = create_study(whole, config, {})
    expected = [propose(study) for _ in range(num_trials)]
    study.close()
    create_study(broken, config, {}).close()
    found = []
    for _ in range(num_trials):  # as if the search were killed after each trial
        study = open_study(broken)
        found.append(propose(study))
        study.close()
    assert found == expected
    assert len({str(params) for params in found}) == num_trials


def test_another_seed_gives_other_suggestions(tmp_path: Path) -> None:
    params = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        study = create_study(folder, build_config({"train": {"seed": seed}}), {})
        params.append(study.ask().params)
        study.close()
    assert params[0] != params[1]


def test_the_best_is_the_lowest_of_those_complete(study: SearchStudy) -> None:
    assert study.best() is None
    study.ask()
    study.report(0, Report(rows=rows(2.0)))
    assert study.best().number == 0  # type: ignore[union-attr]
    study.interrupt()
    run(study, 2.0, 5.0, 5.0)
    run(study, 4.0, 4.0, 4.0)
    study.ask()
    study.report(2, Report(rows=rows(1.0), done=True, diverged="nan"))
    best = study.best()
    assert best is not None and (best.number, best.value) == (0, 2.0)


def test_a_pruned_trial_is_best_before_any_is_complete(study: SearchStudy) -> None:
    study.ask(), study.ask()
    study.report(0, Report(rows=rows(3.0)))
    study.finish(0, TrialState.PRUNED)
    study.report(1, Report(rows=rows(1.0)))
    best = study.best()
    assert best is not None and best.number == 0


def test_of_two_equal_trials_the_first_is_best(study: SearchStudy) -> None:
    for _ in range(2):
        run(study, 5.0)
    best = study.best()
    assert best is not None and best.number == 0


def test_a_checkpoint_is_given_where_its_file_lies(study: SearchStudy) -> None:
    study.ask()
    study.report(0, Report(rows=rows(3.0), checkpoints={"best": 1, "latest": 1}))
    assert study.checkpoint(study.trial(0)) is None
    path = study.trial_folder(0) / "epoch-00001.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    assert study.checkpoint(study.trial(0)) == study.checkpoint(study.trial(0), "latest") == path


def test_the_search_is_done_when_it_has_its_trials_and_none_waits(tmp_path: Path) -> None:
    study = create_study(tmp_path, build_config({"search": {"trials": 1}}), {})
    assert not study.is_done()
    study.ask()
    assert study.is_done()
    study.interrupt()
    assert not study.is_done()
    study.close()


def test_states_are_counted_with_the_interrupted_as_running(study: SearchStudy) -> None:
    for _ in range(4):
        study.ask()
    study.report(0, Report(rows=rows(3.0), done=True))
    study.finish(1, TrialState.FAIL, "the worker died")
    study.interrupt()
    assert count_states(study.trials()) == {"COMPLETE": 1, "PRUNED": 0, "FAIL": 1, "RUNNING": 2}


def test_a_report_and_its_end_are_one_record_on_disk(study: SearchStudy) -> None:
    study.ask()
    before = study.journal.path.read_bytes()
    study.report(0, Report(rows=rows(3.0, 2.0), done=True, checkpoints={"best": 2}))
    lines = study.journal.path.read_bytes().removeprefix(before).splitlines()
    assert len(lines) > 3
    assert all(b'"more":true' in line for line in lines[:-1])
    assert b'"more"' not in lines[-1]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[SearchStudy]:
    """A new study whose pruner compares after 2 and 4 of 8 epochs."""
    study = make_study(tmp_path)
    yield study
    study.close()


def make_study(folder: Path) -> SearchStudy:
    values: dict[str, Any] = {"train": {"max_epochs": 8}, "search": {"pruner": PRUNER}}
    return create_study(folder, build_config(values), {"corpus": "x"})


def rows(*values: float) -> list[Row]:
    """One row an epoch, from the first, with these perplexities."""
    return [{"epoch": epoch, "val_perplexity": v} for epoch, v in enumerate(values, start=1)]


def run(study: SearchStudy, *values: float) -> None:
    """A trial that ends with these perplexities."""
    study.report(study.ask().number, Report(rows=rows(*values), done=True))


def propose(study: SearchStudy) -> dict[str, Any]:
    """The next trial's parameters; it ends at once, with a value that they alone give."""
    proposal = study.ask()
    value = abs(math.log(proposal.params["lr"])) + proposal.params["hidden_size"] / 100
    study.report(proposal.number, Report(rows=rows(value), done=True))
    return proposal.params
