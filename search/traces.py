"""What the page's figures are made of: traces, axes, scales and colours, for plotly.js."""

import math
from collections.abc import Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Figure = dict[str, Any]

STATES = {
    "PRUNED": ("pruned", "#b7aa92"),
    "COMPLETE": ("complete", "#22577a"),
    "RUNNING": ("running", "#3f8f6b"),
    "FAIL": ("failed", "#8a3ea8"),
}
BEST = "#c8452c"
SAMPLING = {"random": "#1d7f86", "sequential": "#c98a1b"}
FIFTHS = ("#c8452c", "#dd8f63", "#c9b48c", "#d3cbb9", "#e3ded2")  # of the trials, best to worst
DARK_IS_GOOD = [
    [0, "#7c2415"],
    [0.25, "#c8452c"],
    [0.5, "#e39a6d"],
    [0.75, "#f0cfae"],
    [1, "#faf3e6"],
]
GRID, INK, PAPER = "#e6e0d3", "#6d675a", "#fffdf8"


def short(value: object) -> str:
    """A parameter or a value in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Scale:
    """Places from 0 to 1 for the values of a parameter."""

    def __init__(self, distribution: BaseDistribution) -> None:
        self.choices: tuple[Any, ...] = ()
        if isinstance(distribution, CategoricalDistribution):
            self.choices = distribution.choices
        else:
            assert isinstance(distribution, IntDistribution | FloatDistribution)
            self.low, self.high, self.log = distribution.low, distribution.high, distribution.log

    def place(self, value: Any) -> float:
        """Where a value lies; the middle where there is but one."""
        if self.choices:
            return self.choices.index(value) / max(1, len(self.choices) - 1)
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """The places to mark: each choice, or both ends."""
        values = self.choices or (self.low, self.high)
        return [(self.place(value), short(value)) for value in values]


def make_trace(
    x: Sequence[Any],
    y: Sequence[Any],
    name: str,
    mode: str,
    numbers: Sequence[int] = (),
    **look: Any,
) -> Figure:
    """A trace of plotly's; `numbers` are the trials of its points."""
    made: Figure = {"type": "scatter", "x": x, "y": y, "name": name, "mode": mode, **look}
    if numbers:
        made |= {
            "customdata": numbers,
            "hovertemplate": "trial %{customdata}: %{x}, %{y:.4g}<extra>" + name + "</extra>",
        }
    return made


def make_axis(title: str, log: bool = False, steps: Sequence[float] = (1, 3)) -> Figure:
    """An axis; a log one is marked at these multiples of each power of ten."""
    made: Figure = {"title": {"text": title}, "gridcolor": GRID, "zeroline": False}
    made |= {"automargin": True, "type": "log" if log else "-"}
    if log:
        marks = [float(f"{step}e{power}") for power in range(-6, 7) for step in steps]
        made |= {"tickvals": marks, "ticktext": [f"{mark:g}" for mark in marks]}
    return made


def value_axis(metric: str) -> Figure:
    """The axis of a perplexity: by magnitude, ticks at round numbers."""
    return make_axis(metric, True, (1, 1.5, 2, 3, 4, 6, 8))


def make_figure(traces: list[Figure], x_axis: Figure, y_axis: Figure) -> Figure:
    """Traces on a pair of axes; those without points are left out, and so out of the legend."""
    layout = {
        "xaxis": x_axis,
        "yaxis": y_axis,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        "dragmode": False,
    }
    return {"data": [trace for trace in traces if len(trace["x"])], "layout": layout}


def rounded(value: float) -> float:
    """A value as exactly as a picture shows it, which keeps the page small."""
    return float(f"{value:.5g}")
