"""What a search costs beside its training: costs.py --config FILE, as search/run.py.

Runs a search in this process with clocks on two of the driver's parts, the taking of a report
(study, pruner, checkpoints, terminal) and the bringing of it to MLflow, and on the driver as a
whole, Tune's loop and the asking for trials included. Prints one JSON line.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from search.messages import Report
from search.session import Options, run_session
from search.tracking import Tracker
from search.tuner import Driver


class Spent:
    """Wall and CPU seconds of the calling thread, summed over a number of times."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.times = 0

    @contextmanager
    def once(self) -> Iterator[None]:
        """Count what happens within."""
        wall, cpu = time.perf_counter(), time.thread_time()
        yield
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.thread_time() - cpu
        self.times += 1


REPORTS, WAITS = Spent(), Spent()
TRACKERS: list[Tracker] = []
FIRST_REPORT_AT: list[float] = []  # CPU seconds of this process when it came: start-up is over


class TimedDriver(Driver):
    """The driver, with a clock on each report."""

    def take_report(self, trial_id: str, report: Report) -> bool:
        """As the driver does."""
        if not FIRST_REPORT_AT:
            FIRST_REPORT_AT.append(time.process_time())
        with REPORTS.once():
            return super().take_report(trial_id, report)


class TimedTracker(Tracker):
    """The tracker, with a clock on all that the search waits for."""

    def start(self) -> None:
        """As the tracker does."""
        TRACKERS.append(self)
        super().start()

    def touch(self, number: int) -> None:
        """As the tracker does."""
        with WAITS.once():
            super().touch(number)

    def close(self, timeout_s: float) -> bool:
        """As the tracker does."""
        with WAITS.once():
            return super().close(timeout_s)


def main() -> None:
    """Run the search of `--config FILE` in the current folder."""
    with (
        patch("search.session.Tracker", TimedTracker),
        patch("search.tuner.Driver", TimedDriver),
    ):
        started = time.perf_counter()
        run_session(Options(root=Path.cwd(), config=Path(sys.argv[2]), settings=sys.argv[3:]))
        wall_s = time.perf_counter() - started
        cpu_s = time.process_time() - FIRST_REPORT_AT[0]
    found = {
        "wall_s": wall_s,
        "reports": REPORTS.times,
        "study_cpu_ms_a_report": REPORTS.cpu_s / REPORTS.times * 1000,
        "mlflow_cpu_ms_a_report": TRACKERS[0].busy_s / REPORTS.times * 1000,
        "driver_cpu_ms_a_report": cpu_s / REPORTS.times * 1000,
        "mlflow_wait_share": WAITS.wall_s / wall_s,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
