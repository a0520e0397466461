"""Optuna's samplers and pruners by name, each sampler seeded for the one trial it is asked for."""

import hashlib
import importlib.util
import inspect
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from pydantic import ValidationError

from search.config import ConfigError, Domain, Plugin, SearchConfig, Space

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "gp": optuna.samplers.GPSampler,
    "qmc": optuna.samplers.QMCSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
}
LEARNING = ("tpe", "gp")  # those that read the trials of the study they are given
PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "patient": optuna.pruners.PatientPruner,
    "threshold": optuna.pruners.ThresholdPruner,
    "nop": optuna.pruners.NopPruner,
}


def seed_for(purpose: str, seed: int, number: int) -> int:
    """A 31-bit seed that depends on the search's seed, a trial's number and what it is for."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def make_sampler(config: SearchConfig, number: int) -> BaseSampler:
    """A fresh sampler for trial `number`: what it proposes depends on the study alone.

    QMC keeps one seed for all trials, since its points are one sequence; its place in it is in
    the study. Raises ConfigError for an unknown name or argument.
    """
    plugin = config.search.sampler
    if config.search.warm_start and plugin.name in SAMPLERS and plugin.name not in LEARNING:
        raise ConfigError(
            f"`search.warm_start` needs a sampler that learns from other trials, "
            f"{' or '.join(LEARNING)}, but got {plugin.name!r} (search.sampler)"
        )
    # Optuna itself would miss it only at the second trial.
    if plugin.name == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise ConfigError(
            "sampler 'cmaes' needs a package that is not installed: pip install cmaes "
            "(search.sampler)"
        )
    seed = seed_for("sampler", config.train.seed, 0 if plugin.name == "qmc" else number)
    sampler: BaseSampler = _make("sampler", SAMPLERS, plugin, {"seed": seed, **plugin.arguments})
    return sampler


def make_pruner(config: SearchConfig) -> BasePruner:
    """The config's pruner; `patient` wraps another. Raises ConfigError."""
    return _make_pruner(config.search.pruner, config.train.max_epochs)


def rungs(config: SearchConfig) -> frozenset[int]:
    """The epochs at which the pruner compares trials, so that each is reported as it is reached.

    Empty for pruners without rungs: their decisions wait for the next regular report.
    """
    plugin, last = config.search.pruner, config.train.max_epochs
    if plugin.name not in ("successive_halving", "hyperband"):
        return frozenset()
    arguments = {"reduction_factor": 3 if plugin.name == "hyperband" else 4, **plugin.arguments}
    rung = arguments.get("min_resource", 1)
    if not isinstance(rung, int):  # "auto": known only once trials have ended
        return frozenset()
    rung *= arguments["reduction_factor"] ** arguments.get("min_early_stopping_rate", 0)
    found = set()
    while rung < last:
        found.add(rung)
        rung *= arguments["reduction_factor"]
    return frozenset(found)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space in Optuna's words."""
    return {
        "hidden_size": _distribution(space.hidden_size, IntDistribution),
        "lr": _distribution(space.lr, FloatDistribution),
        "clip_threshold": _distribution(space.clip_threshold, FloatDistribution),
        "sampling": CategoricalDistribution(space.sampling.choices),
    }


def _distribution(
    domain: Domain[Any], numeric: Callable[..., BaseDistribution]
) -> BaseDistribution:
    if domain.choices is not None:
        return CategoricalDistribution(domain.choices)
    return numeric(domain.low, domain.high, log=domain.log)


def _make_pruner(plugin: Plugin, max_epochs: int) -> BasePruner:
    arguments = plugin.arguments
    if plugin.name == "hyperband":
        arguments = {"max_resource": max_epochs, **arguments}
    if plugin.name == "patient" and arguments.get("wrapped_pruner") is not None:
        try:
            wrapped = Plugin.model_validate(arguments["wrapped_pruner"])
        except ValidationError as error:
            raise ConfigError(
                "`wrapped_pruner` must be a pruner's name or a mapping with a `name`, but got "
                f"{reprlib.repr(arguments['wrapped_pruner'])} (search.pruner)"
            ) from error
        arguments["wrapped_pruner"] = _make_pruner(wrapped, max_epochs)
    pruner: BasePruner = _make("pruner", PRUNERS, plugin, arguments)
    return pruner


def _make(
    kind: str, known: Mapping[str, Callable[..., Any]], plugin: Plugin, arguments: dict[str, Any]
) -> Any:
    where = f"search.{kind}"
    if plugin.name not in known:
        raise ConfigError(
            f"`{where}` must be one of {', '.join(known)}, but got {plugin.name!r} ({where}.name)"
        )
    factory = known[plugin.name]
    accepted = [name for name in inspect.signature(factory).parameters if name != "self"]
    for name in arguments:
        if name not in accepted and name != "seed":
            raise ConfigError(
                f"unknown argument {name!r} of {kind} {plugin.name!r} ({where}); "
                f"it takes {', '.join(accepted)}"
            )
    if "seed" not in accepted:
        arguments = {name: value for name, value in arguments.items() if name != "seed"}
    try:
        return factory(**arguments)
    except (TypeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{kind} {plugin.name!r} cannot be made: {message} ({where})") from error
