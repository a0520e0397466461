"""The pictures of the page: each figure a plain dict that plotly.js draws.

Optuna draws importance and contour. The others it draws of complete trials only and without
their states, and its parallel coordinates need WebGL and `eval`, which the page forbids; so those
are drawn here. A point carries its trial's number, and a click on it leads to the trial's text.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from search.config import PARAMS
from search.pictures import Scene, state_of, thinned
from search.study import value_of

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
CONTOUR_TRIALS = 100
CURVE_POINTS = 20_000  # of all curves together; a phone still draws as many
GRID, INK, PAPER = "#e6e0d3", "#6d675a", "#fffdf8"


def figures(scene: Scene) -> dict[str, list[Figure]]:
    """The figures of every picture that can be drawn."""
    draw: dict[str, Callable[[Scene], list[Figure]]] = {
        "history": lambda scene: [history(scene)],
        "curves": lambda scene: [curves(scene)],
        "importance": lambda scene: [importance(scene)],
        "contour": lambda scene: [contour(scene)],
        "slice": lambda scene: [slice_of(scene, name) for name in PARAMS],
        "parallel": lambda scene: [parallel(scene)],
        "sampling": lambda scene: [sampling(scene)],
    }
    return {key: make(scene) for key, make in draw.items() if key not in scene.left_out}


def history(scene: Scene) -> Figure:
    """Every trial's lowest value by number, and the best so far as a line."""
    traces = [_by_state(scene.trials, state, lambda trial: trial.number) for state in STATES]
    numbers: list[int] = []
    lowest: list[float] = []
    for trial in scene.trials:
        if state_of(trial) != "FAIL":
            numbers.append(trial.number)
            lowest.append(min([_value(trial), *lowest[-1:]]))
    line = {"color": BEST, "width": 2, "shape": "hv"}
    best = _trace(numbers, lowest, "best so far", "lines", line=line, hoverinfo="skip")
    return _figure([*traces, best], _axis("trial"), _value_axis(scene.metric))


def curves(scene: Scene) -> Figure:
    """Every trial's values by epoch, one trace a state; the best trial's stands out."""
    num_points = CURVE_POINTS // len(scene.trials)
    traces = []
    for state, (name, colour) in STATES.items():
        some = [trial for trial in scene.trials if state_of(trial) == state]
        line = {"color": colour, "width": 1.2}
        traces.append(_curve(scene, some, num_points, name, line=line, opacity=0.75))
    if scene.best is not None:
        name = f"trial {scene.best.number}"
        traces.append(_curve(scene, [scene.best], 500, name, line={"color": BEST, "width": 3}))
    doublings = [2**i for i in range(scene.max_epochs.bit_length())]
    x_axis = _axis("epoch", log=True) | {"tickvals": doublings, "ticktext": doublings}
    values = [_value(trial) for trial in scene.trials]
    # A curve may leap to a million on its way: it runs off the top instead of flattening all.
    ends = [math.log10(0.95 * min(values)), math.log10(1.15 * max(values))]
    y_axis = _value_axis(scene.metric) | {"range": ends}
    return _figure(traces, x_axis, y_axis)


def importance(scene: Scene) -> Figure:
    """Optuna's own, in the page's colours."""
    (drawn,) = optuna.visualization.plot_param_importances(scene.judged).data
    bars = drawn.to_plotly_json()
    bars |= {"marker": {"color": STATES["COMPLETE"][1]}, "cliponaxis": False, "width": 0.5}
    x_axis = _axis("share") | {"range": [0, 1.05], "tickformat": ".0%"}
    return _figure([bars], x_axis, _axis("") | {"showgrid": False})


def contour(scene: Scene) -> Figure:
    """Optuna's own, in the page's colours, of at most CONTOUR_TRIALS evenly taken by value.

    Optuna's grid has a place for each pair of values, so it grows with the square of the trials.
    """
    trials = scene.judged_trials()
    some = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    some.add_trials(thinned(sorted(trials, key=_value), CONTOUR_TRIALS))
    drawn = optuna.visualization.plot_contour(some, params=["clip_threshold", "lr"])
    surface, *points = (trace.to_plotly_json() for trace in drawn.data)
    surface |= {
        "z": [[None if math.isnan(z) else _rounded(z) for z in row] for row in surface["z"]],
        "colorscale": DARK_IS_GOOD,
        "reversescale": False,
        "line": {"width": 0.4, "color": PAPER},
        "colorbar": {"title": {"text": scene.metric, "side": "right"}, "thickness": 10},
    }
    for trace in points:
        trace["marker"] = {"color": "#23211c", "size": 4}
    axes = []
    for name, axis in (("clip_threshold", drawn.layout.xaxis), ("lr", drawn.layout.yaxis)):
        ends = {"range": axis.range} if axis.range else {}
        axes.append(_axis(name, axis.type == "log") | {"type": axis.type or "-"} | ends)
    return _figure([surface, *points], *axes)


def slice_of(scene: Scene, name: str) -> Figure:
    """Every trial's lowest value by one parameter."""
    traces = [
        _by_state(scene.trials, state, lambda trial: trial.params[name]) | {"showlegend": False}
        for state in STATES
    ]
    x_axis = _axis(name, _is_log(_distributions(scene)[name]))
    return _figure(traces, x_axis, _value_axis(scene.metric))


def parallel(scene: Scene) -> Figure:
    """A line a trial over all parameters to its value; the best fifth is drawn last."""
    trials = sorted(scene.judged_trials(), key=_value)
    scales = {name: _Scale(dist) for name, dist in _distributions(scene).items()}
    ends = (_value(trials[0]), _value(trials[-1]))
    scales[scene.metric] = _Scale(FloatDistribution(*ends, log=True))
    traces = []
    for fifth in reversed(range(len(FIFTHS))):
        x: list[float | None] = []
        y: list[float | None] = []
        numbers: list[int] = []
        for trial in trials[fifth * len(trials) // 5 : (fifth + 1) * len(trials) // 5]:
            values = {**trial.params, scene.metric: trial.value}
            x += [*range(len(scales)), None]
            y += [*(scale.place(values[name]) for name, scale in scales.items()), None]
            numbers += [trial.number] * (len(scales) + 1)
        line = {"color": FIFTHS[fifth], "width": 2.5 if fifth == 0 else 1.2}
        traces.append(_trace(x, y, "", "lines", numbers, line=line, showlegend=False))
    names = [name.replace("_", "<br>", 1) for name in scales]
    x_axis = _axis("") | {"tickvals": list(range(len(names))), "ticktext": names, "gridcolor": INK}
    figure = _figure(traces, x_axis | {"range": [-0.3, 4.45]}, {"visible": False})
    figure["layout"]["annotations"] = [
        {"x": i, "y": place, "text": text, "showarrow": False, "xanchor": "left", "xshift": 4}
        | {"font": {"size": 11}, "bgcolor": "rgba(255,253,248,.8)"}
        for i, scale in enumerate(scales.values())
        for place, text in scale.ticks()
    ]
    return figure


def sampling(scene: Scene) -> Figure:
    """The two values of each pair on one line, with the settings beside it."""
    names = [
        ", ".join(short(value) for value in pair.params.values()) + f" @{pair.epoch}"
        for pair in scene.pairs
    ]
    x: list[float | None] = []
    y: list[str | None] = []
    for name, pair in zip(names, scene.pairs, strict=True):
        x += [pair.random, pair.sequential, None]
        y += [name, name, None]
    traces = [_trace(x, y, "", "lines", line={"color": GRID, "width": 4}, showlegend=False)]
    for side, colour in SAMPLING.items():
        values = [getattr(pair, side) for pair in scene.pairs]
        marker = {"color": colour, "size": 11}
        traces.append(_trace(values, names, side, "markers", marker=marker))
    y_axis = _axis("hidden size, lr, clipping @epoch") | {"type": "category"}
    figure = _figure(traces, _value_axis(scene.metric), y_axis)
    figure["layout"]["height"] = 140 + 28 * len(names)
    return figure


def short(value: object) -> str:
    """A parameter or a value in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class _Scale:
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


def _by_state(
    trials: Iterable[FrozenTrial], state: str, x_of: Callable[[FrozenTrial], Any]
) -> Figure:
    name, colour = STATES[state]
    some = [trial for trial in trials if state_of(trial) == state]
    marker = {"color": colour, "size": 8, "line": {"color": PAPER, "width": 1}}
    numbers = [trial.number for trial in some]
    y = [_value(trial) for trial in some]
    return _trace([x_of(trial) for trial in some], y, name, "markers", numbers, marker=marker)


def _curve(
    scene: Scene, trials: list[FrozenTrial], num_points: int, name: str, **look: Any
) -> Figure:
    """The curves of some trials as one trace, with a gap after each."""
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[int] = []
    for trial in trials:
        rows = thinned(scene.rows[trial.number], num_points)
        x += [*(row["epoch"] for row in rows), None]
        y += [*(_rounded(row[scene.metric]) for row in rows), None]
        numbers += [trial.number] * (len(rows) + 1)
    return _trace(x, y, name, "lines", numbers, **look)


def _trace(
    x: Sequence[Any],
    y: Sequence[Any],
    name: str,
    mode: str,
    numbers: Sequence[int] = (),
    **look: Any,
) -> Figure:
    """A trace of plotly's; `numbers` are the trials of its points."""
    trace = {"type": "scatter", "x": x, "y": y, "name": name, "mode": mode, **look}
    if numbers:
        trace |= {
            "customdata": numbers,
            "hovertemplate": "trial %{customdata}: %{x}, %{y:.4g}<extra>" + name + "</extra>",
        }
    return trace


def _axis(title: str, log: bool = False, steps: Sequence[float] = (1, 3)) -> Figure:
    """An axis; a log one is marked at these multiples of each power of ten."""
    axis: Figure = {"title": {"text": title}, "gridcolor": GRID, "zeroline": False}
    axis |= {"automargin": True, "type": "log" if log else "-"}
    if log:
        marks = [float(f"{step}e{power}") for power in range(-6, 7) for step in steps]
        axis |= {"tickvals": marks, "ticktext": [f"{mark:g}" for mark in marks]}
    return axis


def _value_axis(metric: str) -> Figure:
    return _axis(metric, True, (1, 1.5, 2, 3, 4, 6, 8))


def _figure(traces: list[Figure], x_axis: Figure, y_axis: Figure) -> Figure:
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


def _distributions(scene: Scene) -> dict[str, BaseDistribution]:
    distributions = scene.judged_trials()[0].distributions
    return {name: distributions[name] for name in PARAMS}


def _is_log(distribution: BaseDistribution) -> bool:
    return bool(getattr(distribution, "log", False))


def _value(trial: FrozenTrial) -> float:
    value = value_of(trial) if trial.intermediate_values else trial.value
    assert value is not None
    return _rounded(value)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")  # what a picture shows; keeps the page small
