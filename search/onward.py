"""A trial trained on in this process, without Ray, from what a person asked for to the last line.

A continuation begins as a folder of its own with a copy of the checkpoint it goes on from. From
there it is trained, saved, killed and gone on with as every trial is.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import Signals

import torch
from optuna.trial import FrozenTrial, TrialState

from model.checkpoint import (
    CheckpointError,
    checkpoint_path,
    keep_checkpoints,
    load_checkpoint,
    save_checkpoint,
    whole_checkpoints,
)
from search.config import ConfigError
from search.continuations import Continuations, Request, continuations_of
from search.folders import locked
from search.messages import TrialSpec
from search.pick import find_target, pick_trial, read_checkpoint
from search.samplers import seed_for
from search.session import (
    INTERRUPTED,
    MLFLOW_CLOSE_S,
    MLFLOW_INTERRUPTED_S,
    stop_on_signals,
)
from search.study import SearchStudy, open_study
from search.texts import check_same_corpus, checked_corpus, training_data
from search.tracking import Tracker
from search.training import Training
from search.view import LINE_EVERY_S
from search.wording import Options, describe, ending, greeting

Say = Callable[[str], None]


def train_on(options: Options) -> int:
    """Begin a continuation, or go on with an interrupted one; give the exit status.

    What a person gave wrong raises ConfigError or CorpusError before anything is written.
    """
    target = find_target(options.root, options.name, options.trial, options.run_id)
    with ExitStack() as stack:
        stack.enter_context(locked(target.folder))
        search = open_study(target.folder)
        stack.callback(search.close)
        owner, trial = pick_trial(target, search)
        corpus = checked_corpus(search.config)
        check_same_corpus(search, corpus)
        request = Request(
            owner.label(trial.number),
            options.which,
            options.epochs or search.config.train.max_epochs,
            options.lr,
            options.clip_threshold,
            options.sampling,
        )
        say = partial(print, flush=True)
        continuations, number = _begin(owner, trial, search, request, say)
        spec = continuations.start(number)
        first_epoch = continuations.trial(number).user_attrs["first_epoch"]
        if first_epoch > 1:
            for notice in plant(spec, owner.trial_folder(trial.number), first_epoch - 1):
                say(notice)
        torch.set_num_threads(spec.num_threads)
        training = Training(spec, training_data(search.config, corpus))
        assert training.epoch >= first_epoch - 1, "what was planted must fit"
        status = _run(options, continuations, number, training, say)
    return status


def _begin(
    owner: SearchStudy, trial: FrozenTrial, search: SearchStudy, request: Request, say: Say
) -> tuple[Continuations, int]:
    """The continuation that this request began before, or else a new one."""
    continuations = continuations_of(search)
    if continuations is not None:
        continuations.interrupt()  # those of a process that was killed
        number = continuations.unfinished(request)
        if number is not None:
            say(f"{continuations.label(number)} was interrupted; going on with it")
            return continuations, number
    root = trial.number if owner is search else trial.user_attrs["root"]
    seed, before = seed_for("trial", search.config.train.seed, root), None
    if request.which != "start":
        source, notices = read_checkpoint(owner, trial, request.which)
        before = source.state["row"]
        for notice in notices:
            say(notice)
    if continuations is None:
        continuations = continuations_of(search, create=True)
        assert continuations is not None
    params = request.params(trial.params)
    return continuations, continuations.add(request, root, params, seed, before)


def plant(spec: TrialSpec, source: Path, epoch: int) -> list[str]:
    """Copy a checkpoint, and the best one so far, as a continuation's own; once, unless damaged.

    spec: the continuation. source: the folder with the checkpoint of `epoch`. Gives a line for
    each one that is not whole. Raises ConfigError where that of `epoch` is not.
    """
    notices = []
    changed = {"params": spec.params, "train": spec.train, "rows": []}
    for own in whole_checkpoints(spec.folder):
        if isinstance(own, CheckpointError):
            notices.append(f"{own}; going back to the beginning, epoch {epoch}")
        elif own.epoch >= epoch and own.state | changed == own.state | {"rows": []}:
            return []
    try:
        start = load_checkpoint(checkpoint_path(source, epoch))
    except CheckpointError as error:
        raise ConfigError(f"there is nothing left to go on from: {error}") from error
    copies = [start]
    if start.state["best"]["epoch"] != epoch:
        try:
            copies.append(load_checkpoint(checkpoint_path(source, start.state["best"]["epoch"])))
        except CheckpointError as error:
            notices.append(f"the best one is not taken over: {error}")
    spec.folder.mkdir(parents=True, exist_ok=True)
    keep_checkpoints(spec.folder, set())
    for copy in reversed(copies):  # the start last, since with it all is there
        save_checkpoint(spec.folder, replace(copy, state=copy.state | changed))
    return notices


def _run(
    options: Options, continuations: Continuations, number: int, training: Training, say: Say
) -> int:
    """Train to the end or a signal, with MLflow beside it, and tell what came of it."""
    tracker = Tracker(continuations, options.root, say)
    for trial in continuations.trials():  # MLflow may lack some of what was done before
        tracker.touch(trial.number)
    for line in greeting(continuations, number):
        say(line)
    tracker.start()
    received = _train(continuations, number, training, tracker, say)
    continuations.interrupt()
    tracker.touch(number)
    timeout_s = MLFLOW_INTERRUPTED_S if received else MLFLOW_CLOSE_S
    if not tracker.close(timeout_s):
        say(
            f"MLflow at {tracker.uri} did not take everything ({tracker.error or 'too slow'}); "
            f"nothing is lost: the rest is brought when this search is trained on again"
        )
    for line in ending(continuations, number, options, tracker):
        say(line)
    if received:
        return INTERRUPTED[received[0]]
    return 0 if continuations.trial(number).state == TrialState.COMPLETE else 1


def _train(
    continuations: Continuations, number: int, training: Training, tracker: Tracker, say: Say
) -> list[Signals]:
    """Train and report to the end or a signal; give the signals received.

    A signal costs what a kill costs: the epochs since the last save, about a second's.
    """
    received: list[Signals] = []
    in_training = done = False

    def stop(reason: str) -> None:
        if in_training:  # elsewhere a report is being kept, and the loop ends after it
            raise KeyboardInterrupt

    said = time.monotonic()
    with stop_on_signals(stop, received), suppress(KeyboardInterrupt):
        while not done:
            in_training = True
            if received:
                break
            report = training.advance()
            in_training = False
            for notice in report.notices:
                say(notice)
            done = continuations.report(number, report)
            tracker.touch(number)
            if time.monotonic() - said >= LINE_EVERY_S and report.rows and not done:
                said = time.monotonic()
                say(describe(report.rows[-1], training.spec.metric))
    return received
