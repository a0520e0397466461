"""Samplers and pruners by name: each seeded, each refused in one line, rungs as Optuna's."""

import importlib.util

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.config import ConfigError, SearchConfig, build_config
from search.samplers import (
    PRUNERS,
    SAMPLERS,
    distributions,
    make_pruner,
    make_sampler,
    rungs,
    seed_for,
)

# The person who names an experimental one is told so by Optuna.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def with_pruner(pruner: object, max_epochs: int = 100) -> SearchConfig:
    return build_config({"search": {"pruner": pruner}, "train": {"max_epochs": max_epochs}})


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_seeds_fit_every_generator_and_differ(seed: int, number: int) -> None:
    seeds = {seed_for(purpose, seed, n) for purpose in "ab" for n in (number, number + 1)}
    assert len(seeds) == 4
    assert all(0 <= value < 2**31 for value in seeds)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "cmaes"])
def test_every_sampler_is_made_by_its_name(name: str) -> None:
    sampler = make_sampler(build_config({"search": {"sampler": name}}), 0)
    assert type(sampler) is SAMPLERS[name]


@pytest.mark.skipif(importlib.util.find_spec("cmaes") is not None, reason="cmaes is installed")
def test_a_sampler_whose_package_is_missing_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match="pip install cmaes"):
        make_sampler(build_config({"search": {"sampler": "cmaes"}}), 0)


@pytest.mark.parametrize(
    "pruner",
    [
        *(name for name in PRUNERS if name not in ("percentile", "patient", "threshold")),
        {"name": "percentile", "percentile": 25.0},
        {"name": "threshold", "upper": 20.0},
        {"name": "patient", "patience": 2, "wrapped_pruner": "median"},
        {"name": "patient", "patience": 2, "wrapped_pruner": None},
        {"name": "patient", "patience": 2, "wrapped_pruner": {"name": "threshold", "lower": 1.0}},
    ],
)
def test_every_pruner_is_made_by_its_name(pruner: object) -> None:
    assert isinstance(make_pruner(with_pruner(pruner)), optuna.pruners.BasePruner)


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        ("halving", "`search.pruner` must be one of successive_halving, .* but got 'halving'"),
        ({"name": "median", "n_warmup": 1}, "unknown argument 'n_warmup' .* n_warmup_steps"),
        ({"name": "median", "n_warmup_steps": -1}, "'median' cannot be made"),
        ({"name": "successive_halving", "reduction_factor": "x"}, "cannot be made"),
        ({"name": "successive_halving", "min_resource": 0}, "cannot be made"),
        ("percentile", "cannot be made: .*'percentile'"),
        ({"name": "patient", "patience": 1}, "cannot be made"),
        ({"name": "patient", "patience": 1, "wrapped_pruner": 3}, "`wrapped_pruner` must be"),
        ({"name": "patient", "patience": 1, "wrapped_pruner": "x"}, "must be one of"),
        ({"name": "nop", "self": 1}, "unknown argument 'self'"),
    ],
)
def test_a_wrong_pruner_is_refused(pruner: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_pruner(with_pruner(pruner))


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("tpee", "`search.sampler` must be one of tpe, random, .* but got 'tpee'"),
        ({"name": "tpe", "startup": 1}, "unknown argument 'startup' of sampler 'tpe'"),
    ],
)
def test_a_wrong_sampler_is_refused(sampler: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_sampler(build_config({"search": {"sampler": sampler}}), 0)


@pytest.mark.parametrize("max_epochs", [1, 7, 64])
@pytest.mark.parametrize(
    "pruner",
    [
        "successive_halving",
        {"name": "successive_halving", "min_resource": 2, "reduction_factor": 3},
        {"name": "successive_halving", "min_resource": 1, "min_early_stopping_rate": 2},
        {"name": "hyperband", "min_resource": 2, "reduction_factor": 4},
        "hyperband",
    ],
)
def test_rungs_are_where_the_pruner_compares(pruner: object, max_epochs: int) -> None:
    config = with_pruner(pruner, max_epochs)
    if pruner == "successive_halving":
        config = with_pruner({"name": pruner, "min_resource": 1}, max_epochs)
    compared = set()
    study = optuna.create_study(pruner=make_pruner(config))
    for _ in range(20):  # hyperband spreads trials over its brackets
        trial = study.ask()
        for epoch in range(1, max_epochs):
            before = num_rungs(study)
            trial.report(1.0, epoch)
            trial.should_prune()
            if num_rungs(study) > before:
                compared.add(epoch)
    assert compared == rungs(config)


@pytest.mark.parametrize(
    "pruner", ["nop", "median", {"name": "successive_halving", "min_resource": "auto"}]
)
def test_pruners_without_known_rungs_have_none(pruner: object) -> None:
    assert rungs(with_pruner(pruner)) == frozenset()


def test_the_space_is_in_optunas_words() -> None:
    settings = ["space.hidden_size={choices: [32, 64]}", "space.lr={low: 0.5, high: 2}"]
    assert distributions(build_config({}, settings).space) == {
        "hidden_size": CategoricalDistribution([32, 64]),
        "lr": FloatDistribution(0.5, 2.0),
        "clip_threshold": FloatDistribution(0.1, 10.0, log=True),
        "sampling": CategoricalDistribution(["random", "sequential"]),
    }
    assert distributions(SearchConfig().space)["hidden_size"] == IntDistribution(64, 512, log=True)


def num_rungs(study: optuna.Study) -> int:
    """How many rungs the newest trial has reached, by Optuna's own marks."""
    marks = study.get_trials(deepcopy=False)[-1].system_attrs
    return sum("completed_rung" in mark for mark in marks)
