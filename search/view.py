"""What the person at the terminal sees: a live picture, or plain lines where it is piped."""

import math
import time
from collections import Counter
from types import TracebackType
from typing import Self

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.study import UNFINISHED, SearchStudy, rows_of, value_of

LINE_EVERY_S = 10.0
REFRESH_PER_S = 4
WIDTH = 80  # what fits on every terminal; only the learning curves grow beyond it
CURVE_WIDTH, CURVE_MAX = 8, 32
BARS = "▁▂▃▄▅▆▇█"


class View:
    """Counts, the best so far and what runs, kept up by `update`; drawn on a console.

    A context manager: drawing starts and ends with it. `say` prints a line above the picture.
    """

    def __init__(self, study: SearchStudy, console: Console, num_workers: int) -> None:
        self.study, self.console, self.num_workers = study, console, num_workers
        self.metric = study.config.search.metric
        self._started = self._last_line = time.monotonic()
        self._train_s = 0.0
        self._states: dict[int, TrialState] = {}
        self._running: dict[int, FrozenTrial] = {}
        self._best: FrozenTrial | None = None
        self._num_ended = 0
        for trial in study.trials():
            self._take(trial)
        self._num_ended = 0  # only what ends from now on tells how fast it goes
        self._live = Live(
            get_renderable=self._draw,
            console=console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Print one line, whatever it holds, as plain text."""
        self.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def update(self, number: int, train_s: float) -> None:
        """Take a trial's change, and the seconds all trials of this session trained so far.

        Without a terminal, print a line when one is due.
        """
        self._train_s = train_s
        self._take(self.study.trial(number))
        if not self.console.is_terminal and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.say(f"{self._counts()} · {self._times()} · {self._best_line()}")

    def _take(self, trial: FrozenTrial) -> None:
        self._states[trial.number] = trial.state
        self._running.pop(trial.number, None)
        if trial.state == TrialState.RUNNING:
            self._running[trial.number] = trial
        self._num_ended += trial.state.is_finished()
        value = value_of(trial)
        if value is not None and trial.state != TrialState.FAIL:
            best = value_of(self._best) if self._best else None
            if best is None or value <= best:
                self._best = trial

    def _total(self) -> int:
        return max(self.study.config.search.trials, len(self._states))

    def _num_done(self) -> int:
        return sum(state.is_finished() for state in self._states.copy().values())

    def _counts(self) -> str:
        states = Counter(self._states.copy().values())
        running = sum(states[state] for state in UNFINISHED)
        return (
            f"{self._num_done()}/{self._total()} trials: {states[TrialState.COMPLETE]} complete, "
            f"{states[TrialState.PRUNED]} pruned, {states[TrialState.FAIL]} failed, "
            f"{running} running"
        )

    def _times(self) -> str:
        gone = time.monotonic() - self._started
        left = self._total() - self._num_done()
        parts = [f"{duration(gone)} gone"]
        if self._num_ended:
            parts.append(f"about {duration(gone / self._num_ended * left)} left")
            parts.append(f"{60 * self._num_ended / gone:.3g} trials a minute")
        parts.append(f"{self._train_s / (gone * self.num_workers):.0%} in training")
        return ", ".join(parts)

    def _best_line(self) -> str:
        if self._best is None:
            return "no perplexity yet"
        return f"best {self.metric} {value_of(self._best):.4g} by trial {self._best.number}"

    def _draw(self) -> Group:
        """The live picture; it fits into 80 columns and the terminal's height."""
        bar = ProgressBar(
            total=self._total(), completed=self._num_done(), width=min(self.console.width, WIDTH)
        )
        parts: list[RenderableType] = [
            Text(self._counts(), style="bold"),
            Text(self._times(), style="dim"),
            bar,
            self._table(),
        ]
        if self._best is not None:
            params = ", ".join(f"{key} {short(v)}" for key, v in self._best.params.items())
            parts.append(Text(f"{self._best_line()}: {params}", style="green"))
            rows = rows_of(self._best)
            if rows:
                parts.append(Text(f"“{printable(rows[-1]['sample_text'])}”", style="italic"))
        return Group(*parts)

    def _table(self) -> RenderableType:
        running = sorted(self._running.copy().items())
        shown = running[: max(1, self.console.height - 9)]
        if not shown:
            return Text("waiting for the workers to start", style="dim")
        params = list(shown[0][1].params)
        curve_width = min(CURVE_MAX, CURVE_WIDTH + max(0, self.console.width - WIDTH))
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
        for name in ("trial", "epoch", self.metric):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("curve", width=curve_width, no_wrap=True)
        for name in params:
            table.add_column(name, no_wrap=True)
        for number, trial in shown:
            rows = rows_of(trial)
            values = [row[self.metric] for row in rows]
            table.add_row(
                str(number),
                str(trial.last_step or 0),
                f"{values[-1]:.4g}" if values else "-",
                sparkline(values, curve_width),
                *(Text(short(trial.params[name])) for name in params if name in trial.params),
            )
        return table


def sparkline(values: list[float], width: int) -> str:
    """A learning curve in at most `width` characters: the higher, the worse; by magnitude."""
    if len(values) > width:
        values = [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    logs = [math.log(value) for value in values]
    low = min(logs, default=0.0)
    span = max(logs, default=0.0) - low or 1.0
    return "".join(BARS[round((log - low) / span * (len(BARS) - 1))] for log in logs)


def printable(text: str) -> str:
    """The text with control characters shown as such, so that none reaches the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def short(value: object) -> str:
    """A parameter in a few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as a clock shows them."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
