"""The pictures as PNG files: the page's own figures, drawn by matplotlib.

Optuna has matplotlib pictures too, but their labels and legends run into each other from a dozen
trials on, and they show no states. Nothing here goes through pyplot, whose state is global, so
stills can be made in any thread.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullLocator

from search.figures import figures
from search.pictures import TITLES, Scene
from search.traces import GRID, INK, PAPER, Figure

SIZE = (9.0, 5.2)  # inches
DPI = 110
GRID_POINTS = 80
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def stills(scene: Scene) -> Iterator[tuple[str, bytes]]:
    """The name of each picture that can be drawn, and its PNG."""
    for key, drawn in figures(scene).items():
        title, caption = TITLES[key]
        with rc_context(STYLE):
            canvas = Canvas(SIZE, DPI, layout="constrained")
            rows = 2 if len(drawn) > 2 else 1
            axes = canvas.subplots(rows, -(-len(drawn) // rows), squeeze=False).flatten()
            for ax, figure in zip(axes, drawn, strict=True):
                _draw(ax, figure)
            canvas.suptitle(f"{title}. {caption}", x=0.01, ha="left", fontsize=11, color="#23211c")
            png = io.BytesIO()
            canvas.savefig(png, format="png")
        yield key, png.getvalue()


def _draw(ax: Axes, figure: Figure) -> None:
    """One plotly figure of ours: lines, points, bars, a contour, and its axes."""
    layout = figure["layout"]
    for trace in figure["data"]:
        if trace["type"] == "bar":
            bars = ax.barh(trace["y"], trace["x"], 0.5, color=trace["marker"]["color"])
            ax.bar_label(bars, trace["text"], padding=3)
        elif trace["type"] == "contour":
            _contour(ax, trace, layout)
        else:
            _scatter(ax, trace)
    _axis(ax, "x", layout["xaxis"])
    _axis(ax, "y", layout["yaxis"])
    for note in layout.get("annotations", ()):
        ax.annotate(note["text"], (note["x"], note["y"]), (5, 0), textcoords="offset points")
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    labelled = [trace for trace in figure["data"] if trace.get("showlegend", True)]
    if len(labelled) > 1:
        ax.legend(frameon=False, ncols=len(labelled), loc="lower left", bbox_to_anchor=(0, 1))


def _scatter(ax: Axes, trace: Figure) -> None:
    """Points and lines; a None is a gap."""
    name = trace.get("name", "") if trace.get("showlegend", True) else ""
    if "markers" in trace["mode"]:
        marker = trace["marker"]
        ax.scatter(trace["x"], trace["y"], 5 * marker["size"], marker["color"], label=name)
        return
    line = trace["line"]
    ax.plot(
        [np.nan if x is None else x for x in trace["x"]],
        [np.nan if y is None else y for y in trace["y"]],
        color=line["color"],
        linewidth=line["width"],
        alpha=trace.get("opacity"),
        drawstyle="steps-post" if line.get("shape") == "hv" else None,
        label=name,
    )


def _contour(ax: Axes, trace: Figure, layout: dict[str, Any]) -> None:
    """The values of a contour's known places, and between them the means by nearness."""
    z = np.array(trace["z"], dtype=float)
    rows, columns = np.nonzero(~np.isnan(z))
    across = _scaled(ax.xaxis, trace["x"], layout["xaxis"])
    up = _scaled(ax.yaxis, trace["y"], layout["yaxis"])
    grid_x, grid_y = (np.linspace(at.min(), at.max(), GRID_POINTS) for at in (across, up))
    off_x = (grid_x[:, None] - across[columns]) / (np.ptp(across) or 1)
    off_y = (grid_y[:, None] - up[rows]) / (np.ptp(up) or 1)
    # (up, across, known); the small number keeps a known place from being divided by.
    nearness = 1 / (off_y[:, None] ** 2 + off_x[None] ** 2 + 1e-4) ** 2
    means = (nearness * z[rows, columns]).sum(2) / nearness.sum(2)
    colours = LinearSegmentedColormap.from_list("page", [tuple(c) for c in trace["colorscale"]])
    edges = (
        np.exp(grid) if layout[axis]["type"] == "log" else grid
        for axis, grid in (("xaxis", grid_x), ("yaxis", grid_y))
    )
    bar = ax.figure.colorbar(ax.contourf(*edges, means, 24, cmap=colours), ax=ax)
    bar.set_label(trace["colorbar"]["title"]["text"])


def _scaled(axis: Any, values: Any, wanted: dict[str, Any]) -> np.ndarray:
    """Where values lie on an axis; choices, which Optuna gives as words, side by side."""
    if wanted["type"] == "category":
        axis.update_units(list(values))
        return np.arange(len(values))
    places = np.asarray(values, dtype=float)
    return np.array(np.log(places) if wanted["type"] == "log" else places)


def _axis(ax: Axes, which: str, wanted: dict[str, Any]) -> None:
    axis = getattr(ax, f"{which}axis")
    if not wanted.get("visible", True):
        axis.set_visible(False)
        return
    axis.set_label_text(wanted["title"]["text"])
    if wanted["type"] == "log":
        getattr(ax, f"set_{which}scale")("log")
        axis.set_minor_locator(NullLocator())
    low, high = wanted.get("range", (None, None))
    if low is not None and wanted["type"] == "log":
        low, high = 10**low, 10**high
    getattr(ax, f"set_{which}lim")(low, high)
    if "tickvals" in wanted:
        ends = getattr(ax, f"get_{which}lim")()
        axis.set_ticks(
            wanted["tickvals"], [str(x).replace("<br>", "\n") for x in wanted["ticktext"]]
        )
        getattr(ax, f"set_{which}lim")(*ends)  # marks beyond the ends have widened them
