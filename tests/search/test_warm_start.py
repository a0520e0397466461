"""What a search starts with: earlier trials for the sampler alone, settings of one's own."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.config import ConfigError, SearchConfig, build_config
from search.earlier import earlier_trials
from search.messages import Report
from search.samplers import make_sampler
from search.study import SearchStudy, create_study, open_study

SHA256 = "ab" * 32
NUM_EARLIER = 14


def wide_config(**search: Any) -> SearchConfig:
    return build_config({"train": {"max_epochs": 2}, "search": {"trials": 4, **search}})


def begin(root: Path, name: str, config: SearchConfig, sha256: str = SHA256) -> SearchStudy:
    """A search that learns from those in `root` that its config names."""
    earlier, learnt = earlier_trials(root, config, sha256)
    folder = root / name
    folder.mkdir()
    attrs = {"corpus": {"sha256": sha256}, "warm_start": learnt}
    return create_study(folder, config, attrs, earlier)


def run_trial(study: SearchStudy) -> dict[str, Any]:
    """Ask for a trial and complete it; the best is near a learning rate of 1."""
    proposal = study.ask()
    value = 5 + abs(proposal.params["lr"] - 1) + proposal.params["hidden_size"] / 1000
    row = {"train_perplexity": value, "val_perplexity": value}
    rows = [{"epoch": epoch, **row} for epoch in (1, 2)]
    study.report(proposal.number, Report(rows=rows, done=True))
    return proposal.params


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a search `first` of completed trials."""
    with closing(begin(tmp_path, "first", wide_config(pruner="nop"))) as first:
        for _ in range(NUM_EARLIER):
            run_trial(first)
    return tmp_path


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband"])
@pytest.mark.parametrize("sampler", ["tpe", "gp"])
@pytest.mark.filterwarnings("ignore:.*greenlet")
def test_the_sampler_learns_from_earlier_trials(root: Path, sampler: str, pruner: str) -> None:
    config = wide_config(warm_start=["first"], sampler=sampler, pruner=pruner)
    with (
        closing(begin(root, "warm", config)) as warm,
        closing(begin(root, "c", wide_config())) as c,
    ):
        assert run_trial(warm) != run_trial(c)


def test_what_it_proposes_is_what_the_first_search_would_have_next(root: Path) -> None:
    with closing(open_study(root / "first")) as first:
        first.config = wide_config(warm_start=["first"])
        first.study.sampler = make_sampler(first.config, 0)  # with the seed of a trial 0
        following = first.study.ask(first._distributions).params
    with closing(begin(root, "warm", wide_config(warm_start=["first"], pruner="nop"))) as warm:
        assert run_trial(warm) == following


def test_counts_numbers_and_best_are_the_searchs_own(root: Path) -> None:
    with closing(begin(root, "warm", wide_config(warm_start=["first"]))) as warm:
        while not warm.is_done():
            run_trial(warm)
        assert [trial.number for trial in warm.trials()] == [0, 1, 2, 3]
        best = warm.best()
        assert best is not None and best.number == warm.study.best_trial.number


def test_a_search_that_goes_on_knows_what_it_knew(root: Path) -> None:
    config = wide_config(warm_start=["first"])
    with closing(begin(root, "whole", config)) as whole:
        expected = [run_trial(whole) for _ in range(3)]
    with closing(begin(root, "halved", config)) as halved:
        seen = [run_trial(halved)]
    os.rename(root / "first", root / "gone")
    with closing(open_study(root / "halved")) as halved:
        assert seen + [run_trial(halved) for _ in range(2)] == expected


def test_optuna_shows_where_each_earlier_trial_came_from(root: Path) -> None:
    begin(root, "warm", wide_config(warm_start=["first"])).close()
    storage = JournalStorage(JournalFileBackend(str(root / "warm" / "study.journal")))
    trials = optuna.load_study(study_name="warm/earlier", storage=storage).trials
    assert [trial.user_attrs for trial in trials] == [
        {"search": "first", "trial": number} for number in range(NUM_EARLIER)
    ]


def test_pruned_trials_are_learnt_from_and_failed_ones_are_not(root: Path) -> None:
    with closing(open_study(root / "first")) as first:
        for state in (TrialState.PRUNED, TrialState.FAIL):
            number = first.ask().number
            row = {"epoch": 1, "train_perplexity": 9.0, "val_perplexity": 9.0}
            first.report(number, Report(rows=[row]))
            first.finish(number, state, "for the test")
    trials, counts = earlier_trials(root, wide_config(warm_start=["first"]), SHA256)
    assert counts == {"first": {"taken": NUM_EARLIER + 1, "left_out": 0}}
    assert trials[-1].state == TrialState.PRUNED


def test_trials_outside_the_space_are_left_out_and_counted(root: Path) -> None:
    with closing(open_study(root / "first", read_only=True)) as first:
        inside = sum(trial.params["lr"] <= 1 for trial in first.trials())
    config = build_config(
        wide_config(warm_start=["first"]).dump(), ["space.lr={low: 0.1, high: 1.0, log: true}"]
    )
    trials, counts = earlier_trials(root, config, SHA256)
    assert counts["first"] == {"taken": inside, "left_out": NUM_EARLIER - inside}
    assert 0 < inside < NUM_EARLIER and len(trials) == inside


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["space.lr={choices: [7.0]}"], "space.lr is choices=[7.0], but was "),
        (["space.lr={choices: [7.0]}"], "low=0.1"),
        (
            ["search.metric=train_perplexity"],
            "went by val_perplexity, but this one goes by train_perplexity",
        ),
        (["search.warm_start=[other]"], "no search is kept in"),
    ],
)
def test_what_does_not_compare_is_refused(root: Path, settings: list[str], said: str) -> None:
    config = build_config(wide_config(warm_start=["first"]).dump(), settings)
    with pytest.raises(ConfigError) as error:
        earlier_trials(root, config, SHA256)
    assert said in str(error.value)


def test_another_text_is_refused_with_both_digests(root: Path) -> None:
    with pytest.raises(ConfigError, match=f"SHA-256 {SHA256}, but this one is on {'cd' * 32}"):
        earlier_trials(root, wide_config(warm_start=["first"]), "cd" * 32)


def test_a_search_without_finished_trials_is_refused(root: Path) -> None:
    begin(root, "empty", wide_config()).close()
    with pytest.raises(ConfigError, match="'empty' has no finished trial"):
        earlier_trials(root, wide_config(warm_start=["empty"]), SHA256)


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_samplers_that_do_not_learn_are_refused(sampler: str) -> None:
    with pytest.raises(ConfigError, match=f"tpe or gp, but got '{sampler}'"):
        make_sampler(wide_config(warm_start=["first"], sampler=sampler), 0)


def test_enqueued_settings_are_the_first_trials(tmp_path: Path) -> None:
    chapter = {"hidden_size": 512, "lr": 1.0, "clip_threshold": 1.0, "sampling": "random"}
    config = wide_config(enqueue=[chapter, {"sampling": "sequential", "lr": 0.5}])
    with closing(begin(tmp_path, "s", config)) as study:
        assert run_trial(study) == chapter
        assert {"sampling": "sequential", "lr": 0.5}.items() <= run_trial(study).items()
        assert run_trial(study) not in ({}, chapter)
        assert [trial.number for trial in study.trials()] == [0, 1, 2]


def test_an_interrupted_first_trial_comes_before_the_second_setting(tmp_path: Path) -> None:
    config = wide_config(enqueue=[{"lr": 0.5}, {"lr": 0.25}])
    with closing(begin(tmp_path, "s", config)) as study:
        study.ask()
    with closing(open_study(tmp_path / "s")) as study:
        assert study.interrupt() == [0]
        assert [run_trial(study)["lr"] for _ in range(2)] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("enqueued", "said"),
    [
        ("[{lr: 9.0}]", "got lr=9.0 and space.lr is "),
        ("[{hidden_size: 8}]", "got hidden_size=8 and space.hidden_size is "),
        ("[{sampling: both}]", "got 'both'"),
        ("[{lrr: 1.0}]", "did you mean 'lr'?"),
        ("[7]", "search.enqueue.0"),
    ],
)
def test_an_enqueued_setting_outside_the_space_is_refused(enqueued: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_config({}, [f"search.enqueue={enqueued}"])
    assert said in str(error.value)
