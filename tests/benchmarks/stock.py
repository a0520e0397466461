"""Ray Tune with its own parts, as its documentation joins them: stock.py --work A

OptunaSearch, ASHAScheduler and MLflowLoggerCallback around a function that calls `tune.report`
once an epoch. Writes into the current folder; prints one JSON line.
Source: Ray's documentation, "Running Tune experiments with Optuna" and "Using MLflow with Tune".
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's switch for loopback only
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import ray
from chapter import train
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from work import NUM_SIDE_BY_SIDE, from_command_line

from search.samplers import distributions


def train_chapter(config: dict[str, Any], text: dict[str, Any], settings: dict[str, Any]) -> None:
    """One trial: the chapter's loop, reported epoch by epoch."""
    for result in train(config, settings=settings, **text):
        tune.report(result)


def main() -> None:
    """Run the work and print how many epochs it took and the best perplexity."""
    work = from_command_line()
    space = distributions(work.config.space)
    max_epochs = work.config.train.max_epochs
    factor = work.config.search.pruner.arguments.get("reduction_factor", 4)
    # Sized so that two trials run on any machine; what is off only saves this way time.
    ray.init(
        num_cpus=NUM_SIDE_BY_SIDE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    trainable = tune.with_parameters(
        train_chapter, text=work.text, settings=work.config.train.model_dump()
    )
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric="val_perplexity",
            mode="min",
            num_samples=work.config.search.trials,
            search_alg=OptunaSearch(space, "val_perplexity", "min", seed=work.config.train.seed),
            scheduler=ASHAScheduler(
                max_t=max_epochs, grace_period=work.grace_epochs, reduction_factor=factor
            ),
        ),
        run_config=tune.RunConfig(
            storage_path=str(Path("ray_results").absolute()),
            callbacks=[MLflowLoggerCallback("sqlite:///mlflow.db", experiment_name="stock")],
            verbose=0,
        ),
    ).fit()
    last, best = results.get_dataframe(), results.get_dataframe("val_perplexity", "min")
    found = {
        "trials": len(last),
        "epochs": int(last["training_iteration"].sum()),
        "best": float(best["val_perplexity"].min()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
