"""The work that is raced: A, B and C, read from the YAML files beside this one by every way."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from data import load_corpus
from search.config import Domain, SearchConfig, Space, load_config

NUM_SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class Work:
    """A search that any of the three ways can do, and the text as `chapter.train` takes it."""

    config: SearchConfig
    text: dict[str, Any]

    @property
    def grace_epochs(self) -> int:
        """The first rung of successive halving; the last epoch where nothing is pruned."""
        last = self.config.train.max_epochs
        return int(self.config.search.pruner.arguments.get("min_resource", last))


def from_command_line() -> Work:
    """The work that `--work A --trials 64 --seed 0` names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", choices=["A", "B", "C"], required=True)
    parser.add_argument("--trials", type=int, help="default: as in the YAML file")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    settings = [f"train.seed={given.seed}"]
    if given.trials is not None:
        settings.append(f"search.trials={given.trials}")
    config = load_config(Path(__file__).with_name(f"{given.work}.yaml"), settings)
    return Work(config, read_text(config))


def read_text(config: SearchConfig) -> dict[str, Any]:
    """The config's corpus: train_tokens, val_tokens and vocab_size."""
    corpus = load_corpus(config.data.corpus, config.data.cleaning, config.data.max_tokens)
    train_tokens, val_tokens = corpus.split(config.data.val_fraction)
    return {
        "train_tokens": np.asarray(train_tokens),
        "val_tokens": np.asarray(val_tokens),
        "vocab_size": len(corpus.vocab),
    }


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """The space as Optuna's documentation defines one: by run, a `suggest_` call a parameter."""
    return {
        "hidden_size": _suggest_number(trial.suggest_int, trial, "hidden_size", space.hidden_size),
        "lr": _suggest_number(trial.suggest_float, trial, "lr", space.lr),
        "clip_threshold": _suggest_number(
            trial.suggest_float, trial, "clip_threshold", space.clip_threshold
        ),
        "sampling": trial.suggest_categorical("sampling", space.sampling.choices),
    }


def _suggest_number(suggest: Any, trial: optuna.Trial, name: str, domain: Domain[Any]) -> Any:
    if domain.choices is not None:
        return trial.suggest_categorical(name, domain.choices)
    return suggest(name, domain.low, domain.high, log=domain.log)
