"""One session of a search, from what a person asked for to its summary."""

import importlib.metadata
import json
import os
import platform
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from data.corpus import Corpus
from search.cluster import Workers, started_ray
from search.config import continue_config, load_config
from search.earlier import earlier_trials
from search.folders import locked, search_folder
from search.samplers import make_pruner, make_sampler
from search.study import JOURNAL, SearchStudy, create_study, open_study
from search.summary import greeting, summarize, tell
from search.texts import check_same_corpus, checked_corpus, describe_corpus, training_data
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
    folder = search_folder(options.root, options.name, options.resume)
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
