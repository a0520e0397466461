"""What the person at the terminal sees: a live picture, or plain lines where it is piped."""

import time
from collections import Counter
from types import TracebackType
from typing import Self

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.study import UNFINISHED, SearchStudy, rows_of, value_of

LINE_EVERY_S = 10.0
REFRESH_PER_S = 4


class View:
    """Counts, the best so far and what runs, kept up by `update`; drawn on a console.

    A context manager: drawing starts and ends with it. `say` prints a line above the picture.
    """

    def __init__(self, study: SearchStudy, console: Console) -> None:
        self.study, self.console = study, console
        self.metric = study.config.search.metric
        self.train_s = 0.0
        self._started = self._last_line = time.monotonic()
        self._states: dict[int, TrialState] = {}
        self._running: dict[int, FrozenTrial] = {}
        self._best: FrozenTrial | None = None
        self._ended_here = 0
        self._live = Live(
            get_renderable=self._draw,
            console=console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
        )
        for trial in study.trials():
            self._take(trial)
        self._ended_here = 0

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

    def update(self, number: int) -> None:
        """Take a trial's change; without a terminal, print a line when one is due."""
        self._take(self.study.trial(number))
        if not self.console.is_terminal and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.say(f"{self._counts()} · {self._best_line()}")

    def _take(self, trial: FrozenTrial) -> None:
        self._states[trial.number] = trial.state
        if trial.state == TrialState.RUNNING:
            self._running[trial.number] = trial
        elif self._running.pop(trial.number, None) and trial.state.is_finished():
            self._ended_here += 1
        value = value_of(trial)
        if value is not None and trial.state != TrialState.FAIL:
            best = value_of(self._best) if self._best else None
            if best is None or value <= best:
                self._best = trial

    def _counts(self) -> str:
        states = Counter(self._states.values())
        unfinished = sum(states[state] for state in UNFINISHED)
        done = len(self._states) - unfinished
        total = max(self.study.config.search.trials, len(self._states))
        return (
            f"{done}/{total} trials: {states[TrialState.COMPLETE]} complete, "
            f"{states[TrialState.PRUNED]} pruned, {states[TrialState.FAIL]} failed, "
            f"{unfinished} running · {self._times(total - done)}"
        )

    def _times(self, left: int) -> str:
        gone = time.monotonic() - self._started
        text = f"{_duration(gone)} gone"
        if self._ended_here and left:
            text += f", about {_duration(gone / self._ended_here * left)} left"
        return text

    def _best_line(self) -> str:
        if self._best is None:
            return "no perplexity yet"
        return f"best {self.metric} {value_of(self._best):.4g} by trial {self._best.number}"

    def _draw(self) -> Group:
        """The live picture, at most 80 columns wide where the terminal is."""
        finished = sum(state.is_finished() for state in list(self._states.values()))
        total = max(self.study.config.search.trials, len(self._states))
        parts: list[ProgressBar | Text | Table] = [
            Text(self._counts(), style="bold"),
            ProgressBar(total=total, completed=finished, width=min(self.console.width, 80)),
            self._table(),
        ]
        if self._best is not None:
            params = ", ".join(f"{key} {_short(v)}" for key, v in self._best.params.items())
            parts.append(Text(f"{self._best_line()}: {params}", style="green"))
            rows = rows_of(self._best)
            if rows:
                parts.append(Text(f"“{printable(rows[-1]['sample_text'])}”", style="italic"))
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("trial", "epoch", self.metric, *self.study.config.space.model_fields_set):
            table.add_column(name, no_wrap=True)
        for number, trial in sorted(self._running.items()):
            value = value_of(trial)
            table.add_row(
                str(number),
                str(trial.last_step or 0),
                f"{value:.4g}" if value is not None else "-",
                *(escape(_short(value)) for value in trial.params.values()),
            )
        return table


def printable(text: str) -> str:
    """The text with control characters shown as such, so that none reaches the terminal."""
    return "".join(
        char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
