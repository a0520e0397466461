"""Plain Optuna, the strongest other way on one machine: python tests/benchmarks/plain.py --work A

`study.optimize` in two processes on one SQLite storage, MLflow by `log_batch`, no Ray. Writes
into the current folder; prints one JSON line. Built to be fast: everything is imported once,
before the processes are forked, and the schemas are made once, in a process of their own, so that
no database connection is carried over a fork.
Source: Optuna's documentation, "Easy Parallelization" and "Efficient Optimization Algorithms".
"""

import json
import multiprocessing
import os
import random
import time

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
import optuna
import torch
from chapter import train
from mlflow.entities import Metric, Param
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.study import MaxTrialsCallback
from work import NUM_SIDE_BY_SIDE, Work, from_command_line, suggest

STORAGE = "sqlite:///study.db"
TRACKING = "sqlite:///mlflow.db"
NAME = "plain"


def make_schemas() -> None:
    """Create the study and the MLflow experiment."""
    optuna.create_study(storage=STORAGE, study_name=NAME, direction="minimize")
    mlflow.MlflowClient(TRACKING).create_experiment(NAME)


def make_pruner(work: Work) -> BasePruner:
    """The work's pruner."""
    pruner = work.config.search.pruner
    if pruner.name == "nop":
        return NopPruner()
    return SuccessiveHalvingPruner(**pruner.arguments)


def run_trials(work: Work, process: int) -> None:
    """Take trials from the shared study until it has all that were asked for."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    client = mlflow.MlflowClient(TRACKING)
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    num_trials, seed = work.config.search.trials, work.config.train.seed
    settings = work.config.train.model_dump()

    def objective(trial: optuna.Trial) -> float:
        random.seed(seed * 10_000 + trial.number)
        torch.manual_seed(seed * 10_000 + trial.number)
        params = suggest(trial, work.config.space)
        run_id = client.create_run(
            experiment.experiment_id, run_name=f"{trial.number}"
        ).info.run_id
        client.log_batch(run_id, params=[Param(key, str(params[key])) for key in params])
        best = float("inf")
        for epoch, result in enumerate(train(params, settings=settings, **work.text), start=1):
            now = time.time_ns() // 1_000_000
            client.log_batch(run_id, [Metric(key, result[key], now, epoch) for key in result])
            best = min(best, result["val_perplexity"])
            trial.report(result["val_perplexity"], epoch)
            if epoch < settings["max_epochs"] and trial.should_prune():
                client.set_terminated(run_id)
                raise optuna.TrialPruned()
        client.set_terminated(run_id)
        return best

    study = optuna.load_study(
        study_name=NAME,
        storage=STORAGE,
        sampler=optuna.samplers.TPESampler(seed=seed * NUM_SIDE_BY_SIDE + process),
        pruner=make_pruner(work),
    )
    # All states are counted, running ones too: the processes stop at the number, not one past it.
    study.optimize(objective, callbacks=[MaxTrialsCallback(num_trials, states=None)])


def main() -> None:
    """Run the work and print how many epochs it took and the best perplexity."""
    work = from_command_line()
    fork = multiprocessing.get_context("fork")
    maker = fork.Process(target=make_schemas)
    maker.start()
    maker.join()
    workers = [fork.Process(target=run_trials, args=(work, i)) for i in range(NUM_SIDE_BY_SIDE)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    trials = optuna.load_study(study_name=NAME, storage=STORAGE).trials
    values = [list(trial.intermediate_values.values()) for trial in trials]
    found = {
        "trials": len(trials),
        "epochs": sum(map(len, values)),
        "best": min(min(of_trial) for of_trial in values),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
