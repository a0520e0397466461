"""MLflow as a picture of the study, brought up to date by a thread of its own.

Neither training nor the search waits for it, and nothing is kept here: what MLflow did not take
is still in the study and is brought when it answers, at the latest at the search's next start.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from search.lab_book import LabBook
from search.lab_view import Links, links, tracking_uri, ui_command
from search.served import SERVE
from search.story import tell_story
from search.study import SearchStudy

BRING_EVERY_S = 2.0  # a short trial begins and ends within it and costs three calls in all
REPORT_EVERY_S = 60.0
START_WITHIN_S = 10.0
RETRY_S = 5.0
ATTEMPTS_AT_END = 3
RETRY_AT_END_S = 0.5


class Tracker:
    """Keeps MLflow in step with a study; made once a session, on the driver.

    `touch(number)` after each change of a trial; `close(timeout_s)` at the end, in any case.
    say(line) shows the person a line. report(stills) writes the report, with still pictures or
    without, and gives its folder; it is called about every minute and at the end, on this thread.
    busy_s: the CPU that bringing took. error: what MLflow last said no to, None once it took it.
    """

    def __init__(
        self,
        study: SearchStudy,
        root: Path,
        say: Callable[[str], None],
        report: Callable[[bool], Path] | None = None,
    ) -> None:
        self.study, self.root, self.say, self.report = study, root, say, report
        self.uri = tracking_uri(study.config.tracking.uri, root)
        self.busy_s = 0.0
        self.error: str | None = None
        self._brought = False
        self._closed = threading.Event()
        self._wake = threading.Condition()
        self._dirty: set[int] = set()
        self._num_touches = 0
        self._closing: str | None = None
        self._book: LabBook | None = None
        self._brought_at = self._reported_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def start(self) -> None:
        """Start bringing, with the first report or a little later.

        Importing MLflow keeps this process busy for seconds, which the first trial's start,
        in this process too, would otherwise wait for.
        """
        self._thread.start()

    def touch(self, number: int) -> None:
        """Say that a trial has changed in the study. Returns at once."""
        with self._wake:
            self._dirty.add(number)
            self._num_touches += 1
            self._wake.notify()

    def wind_up(self) -> None:
        """Say that nothing will change any more: what is left is brought, with honest states.

        A trial that waits to go on is shown as KILLED, and so is a search that is not done.
        """
        with self._wake:
            self._dirty |= {trial.number for trial in self.study.trials(TrialState.WAITING)}
            self._closing = "FINISHED" if self.study.is_done() else "KILLED"
            self._wake.notify()

    def close(self, timeout_s: float) -> bool:
        """Wind up and wait for it, at most so long; False where something stayed behind.

        The report and the registered model follow: see `finish`.
        """
        self.wind_up()
        self._closed.wait(timeout_s)
        return self._brought

    def finish(self, timeout_s: float) -> None:
        """Wait, after `close`, for the last report and the registration of the winner."""
        self._thread.join(timeout_s)

    def run_id(self, number: int) -> str | None:
        """The MLflow run that shows a trial, once there is one."""
        return self._book.run_id(number) if self._book else None

    def links(self) -> Links | None:
        """Where the search is seen, once MLflow has it."""
        if self._book is None:
            return None
        return links(self.uri, self._book.experiment_id, self.study.attrs["search_id"])

    def ui_command(self) -> str:
        """The command that opens MLflow on what this search wrote."""
        return ui_command(self.uri, self.root)

    def _run(self) -> None:
        """The thread: bring, and try again where MLflow does not take it."""
        with self._wake:  # the second touch of a trial is its first report
            self._wake.wait_for(
                lambda: self._closing or self._num_touches > len(self._dirty), START_WITHIN_S
            )
        failures = 0
        while not self._brought:
            try:
                self._bring()
                failures = 0
            except Exception as error:  # whatever MLflow raises must not stop the search
                failures += 1
                self._tell_failure(error)
                if self._brought or (self._closing and failures >= ATTEMPTS_AT_END):
                    break
                with self._wake:
                    self._wake.wait_for(lambda: self._closing, RETRY_S)
                time.sleep(RETRY_AT_END_S if self._closing else 0)
        self._closed.set()

    def _bring(self) -> None:
        """Wait for changes and bring them; when closing, all that is left, and the end."""
        numbers, closing = self._changes()
        started = time.thread_time()
        if self._book is None or self.error:
            # Anew after an error: what MLflow took of a failed request is read, not guessed.
            self._book = LabBook(self.study, self.root, self.uri)
            self._tell_opened()
            numbers |= self._book.lacking()
        trials = self.study.trials()
        self.study.journal.settle()  # nothing is shown that a kill could still take back
        for number in sorted(numbers):
            self._book.show(trials[number])
        if self.study.kind == SearchStudy.kind:
            self._bring_whole(self._book, trials, closing)
        elif closing:  # continuations change nothing about the search as a whole
            self._book.end(closing)
            self._brought = True
            self._closed.set()
        self.busy_s += time.thread_time() - started

    def _bring_whole(
        self, book: LabBook, trials: Sequence[FrozenTrial], closing: str | None
    ) -> None:
        """What is said of the search beside its trials: progress, story, report, best model."""
        book.show_progress(trials)
        report_is_due = closing or time.monotonic() - self._reported_at >= REPORT_EVERY_S
        if report_is_due:
            book.describe(tell_story(self.study))
        if closing:
            book.end(closing)
            self._brought = True
            self._closed.set()
        if report_is_due:
            self._write_report(book, stills=closing == "FINISHED")
        if closing == "FINISHED" and book.register_best():
            self.say(f"the best trial is registered; serve it: {SERVE}")

    def _changes(self) -> tuple[set[int], str | None]:
        """The trials that have changed; waits for some, and until the last bringing is a while
        ago, so that the reports of one trial travel together."""
        with self._wake:
            self._wake.wait_for(lambda: self._dirty or self._closing or self.error)
            pause_s = self._brought_at + BRING_EVERY_S - time.monotonic()
            self._wake.wait_for(lambda: self._closing, max(0.0, pause_s))
            self._brought_at = time.monotonic()
            numbers, self._dirty = self._dirty, set()
            return numbers, self._closing

    def _write_report(self, book: LabBook, stills: bool) -> None:
        if self.report is not None:
            try:
                folder = self.report(stills)
            except Exception as error:  # a picture that fails must not keep numbers back
                self.say(f"the report could not be written: {_one_line(error)}")
            else:
                book.write_folder(folder, "report")
        self._reported_at = time.monotonic()

    def _tell_opened(self) -> None:
        found = self.links()
        if self.error:
            self.say(f"MLflow at {self.uri} answers again")
        elif found is not None:
            self.say(f"trials as they come, with `{self.ui_command()}`: {found.table}")
        self.error = None

    def _tell_failure(self, error: Exception) -> None:
        if self.error is None:
            self.say(
                f"MLflow at {self.uri} does not take what it is brought ({_one_line(error)}); "
                "the search goes on, and what waits is brought when it answers"
            )
        self.error = _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
