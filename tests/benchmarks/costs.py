"""What a search costs beside its training: costs.py --config FILE, as search/run.py.

Runs a search in this process with clocks on two of the driver's parts, the taking of a report
(study, pruner, checkpoints, terminal) and the bringing of it to MLflow, and on the driver as a
whole from the first report on: Tune's loop, the asking for trials, the import of MLflow and the
last report included. Prints one JSON line.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from search.cluster import ENVIRONMENT
from search.lab_book import LabBook
from search.session import Options, run_session
from search.tracking import Tracker


class Clock:
    """Wall and CPU seconds of the calling thread in some methods, and how often they ran.

    began_cpu_s: the CPU of the whole process when the first call came.
    """

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = self.began_cpu_s = 0.0
        self.times = 0

    def on(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, with this clock on it."""

        @functools.wraps(method)
        def timed(owner: Any, *args: Any) -> Any:
            if not self.times:
                self.began_cpu_s = time.process_time()
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return method(owner, *args)
            finally:
                self.wall_s += time.perf_counter() - wall
                self.cpu_s += time.thread_time() - cpu
                self.times += 1

        return timed


def main() -> None:
    """Run the search of `--config FILE` in the current folder."""
    os.environ.update(ENVIRONMENT)  # before Ray is imported
    from search.tuner import Driver

    reports, shown, waits, last_report = Clock(), Clock(), Clock(), Clock()
    clocks: list[tuple[type, str, Clock]] = [
        (Driver, "take_report", reports),
        (LabBook, "show", shown),
        (LabBook, "show_progress", shown),
        (Tracker, "touch", waits),
        (Tracker, "close", waits),
        (Tracker, "finish", last_report),  # and the registration of the winner
    ]
    started = time.perf_counter()
    with ExitStack() as stack:
        for owner, name, clock in clocks:
            stack.enter_context(patch.object(owner, name, clock.on(getattr(owner, name))))
        run_session(Options(root=Path.cwd(), config=Path(sys.argv[2])))
    wall_s = time.perf_counter() - started
    spent = {
        "study": reports.cpu_s,
        "mlflow": shown.cpu_s,
        "driver": time.process_time() - reports.began_cpu_s,
    }
    found = {
        "wall_s": wall_s,
        "reports": reports.times,
        **{f"{part}_cpu_ms_a_report": cpu / reports.times * 1000 for part, cpu in spent.items()},
        "mlflow_wait_share": waits.wall_s / wall_s,
        "last_report_wait_s": last_report.wall_s,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
