"""The pictures of the page: each figure a plain dict that plotly.js draws.

Optuna draws importance and contour. The others it draws of complete trials only and without
their states, and its parallel coordinates need WebGL and `eval`, which the page forbids; so those
are drawn here. A point carries its trial's number, and a click on it leads to the trial's text.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial

from search.config import PARAMS
from search.pictures import Scene, state_of, thinned
from search.study import value_of
from search.traces import (
    BEST,
    DARK_IS_GOOD,
    FIFTHS,
    GRID,
    INK,
    PAPER,
    SAMPLING,
    STATES,
    Figure,
    Scale,
    make_axis,
    make_figure,
    make_trace,
    rounded,
    short,
    value_axis,
)

CONTOUR_TRIALS = 100
CURVE_POINTS = 20_000  # of all curves together; a phone still draws as many


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
    best = make_trace(numbers, lowest, "best so far", "lines", line=line, hoverinfo="skip")
    return make_figure([*traces, best], make_axis("trial"), value_axis(scene.metric))


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
    x_axis = make_axis("epoch", log=True) | {"tickvals": doublings, "ticktext": doublings}
    values = [_value(trial) for trial in scene.trials]
    # A curve may leap to a million on its way: it runs off the top instead of flattening all.
    ends = [math.log10(0.95 * min(values)), math.log10(1.15 * max(values))]
    y_axis = value_axis(scene.metric) | {"range": ends}
    return make_figure(traces, x_axis, y_axis)


def importance(scene: Scene) -> Figure:
    """Optuna's own, in the page's colours."""
    (drawn,) = optuna.visualization.plot_param_importances(scene.judged).data
    bars = drawn.to_plotly_json()
    bars |= {"marker": {"color": STATES["COMPLETE"][1]}, "cliponaxis": False, "width": 0.5}
    x_axis = make_axis("share") | {"range": [0, 1.05], "tickformat": ".0%"}
    return make_figure([bars], x_axis, make_axis("") | {"showgrid": False})


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
        "z": [[None if math.isnan(z) else rounded(z) for z in row] for row in surface["z"]],
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
        axes.append(make_axis(name, axis.type == "log") | {"type": axis.type or "-"} | ends)
    return make_figure([surface, *points], *axes)


def slice_of(scene: Scene, name: str) -> Figure:
    """Every trial's lowest value by one parameter."""
    traces = [
        _by_state(scene.trials, state, lambda trial: trial.params[name]) | {"showlegend": False}
        for state in STATES
    ]
    x_axis = make_axis(name, _is_log(_distributions(scene)[name]))
    return make_figure(traces, x_axis, value_axis(scene.metric))


def parallel(scene: Scene) -> Figure:
    """A line a trial over all parameters to its value; the best fifth is drawn last."""
    trials = sorted(scene.judged_trials(), key=_value)
    scales = {name: Scale(dist) for name, dist in _distributions(scene).items()}
    ends = (_value(trials[0]), _value(trials[-1]))
    scales[scene.metric] = Scale(FloatDistribution(*ends, log=True))
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
        traces.append(make_trace(x, y, "", "lines", numbers, line=line, showlegend=False))
    names = [name.replace("_", "<br>", 1) for name in scales]
    x_axis = make_axis("") | {
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "gridcolor": INK,
    }
    figure = make_figure(traces, x_axis | {"range": [-0.3, 4.45]}, {"visible": False})
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
    traces = [make_trace(x, y, "", "lines", line={"color": GRID, "width": 4}, showlegend=False)]
    for side, colour in SAMPLING.items():
        values = [getattr(pair, side) for pair in scene.pairs]
        marker = {"color": colour, "size": 11}
        traces.append(make_trace(values, names, side, "markers", marker=marker))
    y_axis = make_axis("hidden size, lr, clipping @epoch") | {"type": "category"}
    figure = make_figure(traces, value_axis(scene.metric), y_axis)
    figure["layout"]["height"] = 140 + 28 * len(names)
    return figure


def _by_state(
    trials: Iterable[FrozenTrial], state: str, x_of: Callable[[FrozenTrial], Any]
) -> Figure:
    name, colour = STATES[state]
    some = [trial for trial in trials if state_of(trial) == state]
    marker = {"color": colour, "size": 8, "line": {"color": PAPER, "width": 1}}
    numbers = [trial.number for trial in some]
    y = [_value(trial) for trial in some]
    return make_trace([x_of(trial) for trial in some], y, name, "markers", numbers, marker=marker)


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
        y += [*(rounded(row[scene.metric]) for row in rows), None]
        numbers += [trial.number] * (len(rows) + 1)
    return make_trace(x, y, name, "lines", numbers, **look)


def _distributions(scene: Scene) -> dict[str, BaseDistribution]:
    distributions = scene.judged_trials()[0].distributions
    return {name: distributions[name] for name in PARAMS}


def _is_log(distribution: BaseDistribution) -> bool:
    return bool(getattr(distribution, "log", False))


def _value(trial: FrozenTrial) -> float:
    value = value_of(trial) if trial.intermediate_values else trial.value
    assert value is not None
    return rounded(value)
