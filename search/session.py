"""One session of a search, from what a person asked for to its summary."""

import importlib.metadata
import json
import os
import platform
import re
import shlex
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from data.corpus import Corpus, CorpusError, load_corpus
from search.cluster import Workers, started_ray
from search.config import NAME, ConfigError, SearchConfig, continue_config, load_config
from search.earlier import earlier_trials
from search.messages import TrainingData
from search.samplers import make_pruner, make_sampler
from search.study import JOURNAL, SearchStudy, count_states, create_study, open_study, rows_of
from search.tracking import Tracker
from search.view import View

PACKAGES = ("torch", "ray", "optuna", "mlflow")
MLFLOW_CLOSE_S = 60.0
MLFLOW_INTERRUPTED_S = 3.0
INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True)
class Options:
    """What the command line said; see `python search/run.py --help`."""

    root: Path
    config: Path | None = None
    name: str | None = None
    resume: bool = False
    settings: Sequence[str] = ()
    json: bool = False


def run_session(options: Options) -> int:
    """Start or go on with a search, wait for it, tell its result; give the exit status.

    What a person gave wrong raises ConfigError or CorpusError before anything is
    started or written.
    """
    started = time.monotonic()
    folder = search_folder(options)
    with ExitStack() as stack:
        study = None
        if (folder / JOURNAL).is_file():
            stack.enter_context(locked(folder))
            study = open_study(folder)
            stack.callback(study.close)
            stored = study.attrs["config"]
            study.config = continue_config(stored, options.config, options.settings)
        config = study.config if study else load_config(options.config, options.settings)
        make_sampler(config, 0), make_pruner(config)  # a wrong name or argument is said now
        corpus = checked_corpus(config)
        if study is not None:
            check_same_corpus(study, corpus)
        else:
            earlier, learnt = earlier_trials(options.root / "runs", config, corpus.sha256)
        with started_ray(config) as workers:
            if study is None:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder))
                attrs = {**description(corpus), "warm_start": learnt}
                study = create_study(folder, config, attrs, earlier)
                stack.callback(study.close)
            study.set_attr("config", config.dump())
            session = Session(study, corpus, workers, options, started)
            session.run()
        return session.end()


class Session:
    """A search at work: the study, and everything that executes and shows it."""

    def __init__(
        self,
        study: SearchStudy,
        corpus: Corpus,
        workers: Workers,
        options: Options,
        started: float,
    ) -> None:
        from search.tuner import Driver  # Ray is up by now

        self.study, self.corpus, self.workers = study, corpus, workers
        self.options, self.started = options, started
        self.view = View(study, Console(stderr=options.json), workers.count)
        self.tracker = Tracker(study, options.root, self.view.say, self._report)
        self.driver = Driver(study, workers, self._on_change, self.view.say)
        self.received: list[signal.Signals] = []

    def run(self) -> None:
        """Run trials until the search has them all or is stopped."""
        from search.tuner import run_trials

        for line in greeting(self.study, self.corpus, self.workers.count):
            self.view.say(line)
        for number in self.study.interrupt():
            self.view.say(f"trial {number} was left running; it goes on from its last checkpoint")
        data = training_data(self.study.config, self.corpus)
        with stop_on_signals(self.driver.stop, self.received), self.view:
            self.tracker.start()
            run_trials(self.driver, data)
            self.study.interrupt()
            self.tracker.wind_up()

    def end(self) -> int:
        """Bring the rest to MLflow, tell the result and give the exit status; Ray is gone."""
        timeout_s = MLFLOW_INTERRUPTED_S if self.received else MLFLOW_CLOSE_S
        if not self.tracker.close(timeout_s):
            self.view.say(
                f"MLflow at {self.tracker.uri} did not take everything "
                f"({self.tracker.error or 'too slow'}); nothing is lost: the rest is brought "
                f"when this search is started again"
            )
        wall_s = time.monotonic() - self.started
        summary = summarize(
            self.study, self.corpus, self.tracker, wall_s, self.driver.train_s, self.workers.count
        )
        if self.options.json:
            print(json.dumps(summary), flush=True)
        tell(self.view, self.study, summary, self.tracker, self.options.root)
        self.tracker.finish(timeout_s)
        if self.received:
            return INTERRUPTED[self.received[0]]
        return 0 if summary["best"] else 1

    def _report(self, stills: bool) -> Path:
        """Write the report beside the study; its imports take seconds, and are left till then."""
        from search.report import write_report

        folder = self.study.journal.path.parent / "report"
        write_report(self.study, folder, stills)
        return folder

    def _on_change(self, number: int) -> None:
        self.tracker.touch(number)
        self.view.update(number, self.driver.train_s)


def search_folder(options: Options) -> Path:
    """The folder of the search that is meant: named, the latest, or one for a new name.

    Raises ConfigError for a name that is no plain folder name, or where there is no latest.
    """
    runs = options.root / "runs"
    if options.name is not None:
        if not re.fullmatch(NAME, options.name):
            raise ConfigError(
                "`--name` must be letters, digits, '.', '_' and '-', beginning with a letter or "
                f"digit, at most 100, but got {options.name!r:.120}"
            )
        return runs / options.name
    if options.resume:
        return latest_search(options.root)
    return runs / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def latest_search(root: Path) -> Path:
    """The folder of the search whose study changed last. Raises ConfigError without one."""
    journals = list((root / "runs").glob(f"*/{JOURNAL}"))
    if not journals:
        raise ConfigError(
            f"there is no search in {root / 'runs'} yet; "
            "start one: python search/run.py --trials 64"
        )
    return max(journals, key=lambda path: path.stat().st_mtime).parent


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a search's folder; the lock goes with the process, however it ends.

    Raises ConfigError that names the holder.
    """
    holder = folder / "holder.json"
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"search {folder.name!r} is in use by {_read_holder(holder)}; wait for it, or stop it"
        ) from error
    try:
        me = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().isoformat(),
        }
        holder.write_text(json.dumps(me))
        yield
        holder.unlink(missing_ok=True)
    finally:
        lock.release()


def _read_holder(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text())
        return f"process {found['pid']} on {found['host']} since {found['since'][:19]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def checked_corpus(config: SearchConfig) -> Corpus:
    """The config's text, large enough to train and to test on.

    Raises CorpusError or ConfigError, each with the key that would have to change.
    """
    data, train = config.data, config.train
    try:
        corpus = load_corpus(data.corpus, data.cleaning, data.max_tokens)
    except CorpusError as error:
        raise CorpusError(f"{error} (data.corpus)") from error
    train_tokens, val_tokens = corpus.split(data.val_fraction)
    # One batch, at the worst offset that the iterators may draw.
    needed = (train.batch_size + 1) * train.num_steps + 1
    if len(train_tokens) < needed:
        raise CorpusError(
            f"the training text must fill one batch, {needed} tokens for "
            f"train.batch_size={train.batch_size} and train.num_steps={train.num_steps}, but "
            f"{corpus.name!r} gives {len(train_tokens)} (data.corpus, data.max_tokens)"
        )
    if data.val_fraction > 0 and len(val_tokens) == 0:
        raise CorpusError(
            f"something must be held out, but data.val_fraction={data.val_fraction} of "
            f"{len(corpus.tokens)} tokens is none"
        )
    if not any(char in corpus.vocab.token_to_idx for char in train.prefix):
        raise ConfigError(
            f"`train.prefix` must hold a symbol of the text, but got {train.prefix!r}; "
            f"known: {''.join(corpus.vocab.idx_to_token[1:])!r:.80}"
        )
    return corpus


def training_data(config: SearchConfig, corpus: Corpus) -> TrainingData:
    """The text as trials get it."""
    num_train = len(corpus.split(config.data.val_fraction)[0])
    return TrainingData(
        corpus.name, corpus.sha256, corpus.tokens, num_train, corpus.vocab.idx_to_token
    )


def check_same_corpus(study: SearchStudy, corpus: Corpus) -> None:
    """Refuse to go on with a search on another text. Raises CorpusError with both digests."""
    kept, found = study.attrs["corpus"], describe_corpus(corpus)
    if kept != found:
        raise CorpusError(
            f"search {study.name!r} ran on {kept['name']} (SHA-256 {kept['sha256']}, "
            f"{kept['tokens']} tokens, {kept['vocab']} symbols), but now there is {found['name']} "
            f"(SHA-256 {found['sha256']}, {found['tokens']} tokens, {found['vocab']} symbols); "
            f"bring the text back, or start another search"
        )


def describe_corpus(corpus: Corpus) -> dict[str, Any]:
    """What a search keeps of its text."""
    return {
        "name": corpus.name,
        "sha256": corpus.sha256,
        "tokens": len(corpus.tokens),
        "vocab": len(corpus.vocab),
    }


def description(corpus: Corpus) -> dict[str, Any]:
    """What is kept with a new search besides its config."""
    return {
        "search_id": uuid.uuid4().hex,
        "corpus": describe_corpus(corpus),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }


@contextmanager
def stop_on_signals(stop: Callable[[str], None], received: list[signal.Signals]) -> Iterator[None]:
    """Call `stop` at the first Ctrl-C or SIGTERM, leave at once at the second.

    What was received is added to the list.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(INTERRUPTED[signal.Signals(number)])
        received.append(signal.Signals(number))
        stop(f"{signal.Signals(number).name} received")

    before = {number: signal.signal(number, handle) for number in INTERRUPTED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summarize(
    study: SearchStudy,
    corpus: Corpus,
    tracker: Tracker,
    wall_s: float,
    train_s: float,
    num_workers: int,
) -> dict[str, Any]:
    """The search in plain values: what `--json` prints.

    wall_s and train_s (seconds in training steps, all workers together) are this session's.
    """
    metric = study.config.search.metric
    best = study.best()
    found: dict[str, Any] | None = None
    if best is not None:
        rows = rows_of(best)
        row = min(rows, key=lambda row: (row[metric], row["epoch"]))
        checkpoint = study.checkpoint(best)
        found = {
            "trial": best.number,
            metric: row[metric],
            "params": best.params,
            "checkpoint": str(checkpoint) if checkpoint else None,
            "sample_text": row["sample_text"],
            "mlflow_run_id": tracker.run_id(best.number),
        }
    return {
        "search": study.name,
        "trials": count_states(study.trials()),
        "best": found,
        "corpus": describe_corpus(corpus),
        "wall_s": round(wall_s, 3),
        "train_s": round(train_s, 3),
        "workers": num_workers,
    }


def greeting(study: SearchStudy, corpus: Corpus, num_workers: int) -> Iterator[str]:
    """What is said before the first trial."""
    if corpus.notice:
        yield corpus.notice
    if study.journal.lost_bytes:
        yield (
            f"{study.journal.path}: {study.journal.lost_bytes} bytes of an unfinished record were "
            f"cut off; {len(study.trials())} trials recovered"
        )
    yield (
        f"search {study.name}: {study.config.search.trials} trials, {num_workers} at a time, on "
        f"{corpus.name} ({len(corpus.tokens)} tokens, {len(corpus.vocab)} symbols)"
    )
    for name, count in study.attrs.get("warm_start", {}).items():
        left_out = f"; {count['left_out']} lie outside the space" if count["left_out"] else ""
        yield f"warm start: {count['taken']} trials of search {name}{left_out}"


def tell(
    view: View, study: SearchStudy, summary: dict[str, Any], tracker: Tracker, root: Path
) -> None:
    """Say how the search ended and how to go on."""
    counts = summary["trials"]
    unfinished = f", {counts['RUNNING']} to go on with" if counts["RUNNING"] else ""
    view.say(
        f"{counts['COMPLETE']} complete, {counts['PRUNED']} pruned, {counts['FAIL']} failed"
        f"{unfinished}; {summary['wall_s']:.0f} s, "
        f"{summary['train_s'] / (summary['wall_s'] * summary['workers']):.0%} of it in training"
    )
    best = summary["best"]
    if best:
        metric = study.config.search.metric
        params = ", ".join(f"{key}={value}" for key, value in best["params"].items())
        view.say(f"best: trial {best['trial']}, {metric} {best[metric]:.4f}, {params}")
        view.say(f"  text: {best['sample_text']}")
        view.say(f"  checkpoint: {best['checkpoint']}")
    elif counts["FAIL"]:
        view.say("no trial succeeded; their reasons are in MLflow, tag `reason`")
    if not study.is_done():
        at_root = "" if root == Path.cwd() else f" --root {shlex.quote(str(root))}"
        view.say(f"go on: python search/run.py --name {study.name}{at_root}")
    view.say(f"see it: {tracker.ui_command()}")
    links = tracker.links()
    if links is not None:
        view.say(f"  trials: {links.table}")
        view.say(f"  curves: {links.charts}")
    view.say(f"  report: {study.journal.path.parent / 'report' / 'report.html'}")
