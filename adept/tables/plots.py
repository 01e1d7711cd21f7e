"""All plots of tables, by matplotlib: charts for the page as SVG, and a table's learning curves as PNG.

On the page a series has a number: the style sheet gives the number its colour, MARKERS its shape, so that series do not
differ by colour alone.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adept.tables.svg import Group, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

POINTS_PER_INCH = 72
WIDTH, HEIGHT = 320, 204
LEFT, RIGHT, TOP, BOTTOM = 42, 310, 8, 164
"""A chart and its axes in points, which are the units of the SVG; y grows downwards."""

LETTER = 6
"""Width of a digit of a tick's label, in points."""

MARKERS = (("o", 6.8), ("s", 6), ("D", 6), ("^", 8), ("v", 8), ("h", 8.5), ("<", 8), (">", 8))
"""(matplotlib's marker, its size in points) of each series. Later series begin again, with broad and pale lines."""

LINE_STYLES = ("-", "--", ":", "-.")
"""Of the seeds' curves in a PNG. On the page the classes seed1 to seed3 of the style sheet look alike."""

LEGEND_ROWS = 16
"""Entries of a PNG's legend under each other, at most."""

PAPER_ONLY = -1
"""The number of the series of what only the paper has: grey circles."""


@dataclass(frozen=True)
class Mark:
    """What is drawn of one series.

    kind: "line" through its points; "dots" or "hollow", symbols at them; "rings" around them; "level", a horizontal
        line at the first point's y; "bars" of a histogram, with the points (left edge, height) of each bin, and
        (right edge, 0).
    seed: the number of a line's seed, which the style sheet gives its dashes.
    titles: the tooltip of each symbol. name: the tooltip of a mark without `titles`.
    shift: points to the right. attributes: by which the page filters, such as {"method": "|pt|"}.
    """

    kind: str
    series: int
    points: Sequence[tuple[float, float]]
    name: str = ""
    titles: Sequence[str] = ()
    shift: float = 0.0
    seed: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """Marks over two axes.

    description: the chart in words, for readers who do not see it. x_ticks: the values that are labelled; None chooses
    round ones. y_min: where the y axis begins.
    """

    marks: Sequence[Mark]
    x_label: str
    y_label: str
    description: str
    log_x: bool = False
    x_ticks: Sequence[float] | None = None
    y_min: float | None = None


@dataclass(frozen=True)
class Curve:
    """One run's curve.

    series, name: of its row, which has a colour and a marker. seed: the number of its seed among the row's, which has a
    line style; seed_name: what the legend calls it, "" where it does not. points: (step, value) pairs.
    """

    series: int
    name: str
    seed: int
    seed_name: str
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class CurvePanel:
    """Learning curves over one pair of axes."""

    title: str
    y_label: str
    curves: Sequence[Curve]


# The page's charts ----------------------------------------------------------------------------------------------------


def chart_svg(chart: Chart, salt: str) -> str:
    """The chart as an <svg> element. salt: another one for every chart of a page, since ids are made from it."""
    across = [x for mark in chart.marks if mark.kind != "level" for x, _ in mark.points] or [0.0, 1.0]
    up = [y for mark in chart.marks for _, y in mark.points]
    x_limits = limits(across, log=chart.log_x, min_span=1 if chart.log_x else 0, margin=0.07)
    y_limits = limits(up, min_span=2 if chart.y_min is None else 0, low=chart.y_min)
    with _settings(salt):
        figure, axes = _empty_axes(WIDTH, HEIGHT, (LEFT, RIGHT, TOP, BOTTOM))
        axes.set_xscale("log" if chart.log_x else "linear")
        axes.set(xlim=x_limits, ylim=y_limits)
        axes.spines["bottom"].set(visible=True, gid="axis")
        _label_axes(axes, chart)
        for number, mark in enumerate(chart.marks):
            _draw(axes, mark, gid=f"mark-{number}", zorder=3 + number)
        groups = {f"mark-{number}": _group(mark) for number, mark in enumerate(chart.marks)}
        groups |= {name: Group(name) for name in ("grid", "axis", "tick", "label")}
        return inline_svg(_svg(figure), groups, {"role": "img", "aria-label": chart.description})


@functools.cache
def swatch_svg(series: int, seed: int | None = None) -> str:
    """The line and the symbol of a series, for a legend; of a seed, its line alone."""
    with _settings("swatch"):
        figure, axes = _empty_axes(28, 14, (0, 28, 0, 14))
        axes.set(xlim=(0, 28), ylim=(0, 14))
        marks = {"line": Mark("line", series, [(1, 7), (27, 7)], seed=seed or 0)}
        marks |= {"symbol": Mark("dots", series, [(14, 7)])} if seed is None else {}
        for gid, mark in marks.items():
            _draw(axes, mark, gid=gid, zorder=3)
        return inline_svg(_svg(figure), {gid: _group(mark) for gid, mark in marks.items()}, {"aria-hidden": "true"})


def series_class(series: int) -> str:
    """The classes that give a series its colour, and another line where the colours begin again."""
    if series == PAPER_ONLY:
        return "quoted"
    return f"s{series % len(MARKERS)}" + (" again" if series >= len(MARKERS) else "")


def limits(
    values: Sequence[float], *, log: bool = False, min_span: float = 0, low: float | None = None, margin: float = 0.05
) -> tuple[float, float]:
    """The two ends of an axis that shows `values`.

    min_span: the smallest distance between the ends, in decades where log. margin: what is added at each end, as a part
    of the distance. low: the lower end, which then has no margin.
    """
    first, last = (math.log10(value) if log else value for value in (min(values), max(values)))
    min_span = min_span or (0 if first < last else abs(last) or 1)
    if last - first < min_span:
        first, last = (first + last - min_span) / 2, (first + last + min_span) / 2
    margin *= last - first
    first, last = (first - margin if low is None else low), last + margin
    return (10**first, 10**last) if log else (first, last)


def round_ticks(low: float, high: float, count: int, *, log: bool = False) -> list[float]:
    """Round values between `low` and `high`, some `count` of them."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if log:
        locator = LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,), numticks=count + 2)
    else:
        locator = MaxNLocator(count, steps=(1, 2, 2.5, 5, 10))
    tolerance = 1e-9 * (high - low)
    return [tick for tick in locator.tick_values(low, high).tolist() if low - tolerance <= tick <= high + tolerance]


def tick_label(value: float) -> str:
    """20, 0.5, 76k, 1.5M, 1e-4."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.6g}".replace("-", "−")


@contextlib.contextmanager
def _settings(salt: str) -> Iterator[None]:
    """matplotlib's own defaults, whatever the user's are; text stays text, and ids depend on `salt` alone."""
    import matplotlib
    import matplotlib.style

    with matplotlib.style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 10.5}]):
        yield


def _empty_axes(width: float, height: float, box: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """Axes without ticks and lines in the (left, right, top, bottom) of a figure, all in points."""
    from matplotlib.figure import Figure

    left, right, top, bottom = box
    figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH))
    axes = figure.add_axes(
        (left / width, 1 - bottom / height, (right - left) / width, (bottom - top) / height), xticks=[], yticks=[]
    )
    for part in (figure.patch, axes.patch, *axes.spines.values()):
        part.set_visible(False)
    return figure, axes


def _label_axes(axes: Axes, chart: Chart) -> None:
    """Titles of the axes, ticks, and a grid of horizontal lines. gids: label, tick and grid."""
    ticks = round_ticks(*axes.get_ylim(), 4)
    axes.set_yticks(ticks, [tick_label(tick) for tick in ticks])
    ticks = sorted(round_ticks(*axes.get_xlim(), 5, log=chart.log_x) if chart.x_ticks is None else chart.x_ticks)
    ticks = _keep_apart(ticks, axes)
    axes.set_xticks(ticks, [tick_label(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.tick_params(length=0, pad=5)
    axes.grid(axis="y")
    for tick in (*axes.xaxis.get_major_ticks(), *axes.yaxis.get_major_ticks()):
        tick.label1.set_gid("tick")
        tick.gridline.set(gid="grid", clip_on=False)
    width, height = RIGHT - LEFT, BOTTOM - TOP
    axes.set_xlabel(chart.x_label, gid="label", verticalalignment="baseline")
    axes.set_ylabel(chart.y_label, gid="label", verticalalignment="baseline")
    axes.xaxis.set_label_coords(0.5, (BOTTOM - (HEIGHT - 8)) / height)
    axes.yaxis.set_label_coords((9 - LEFT) / width, 0.5)


def _keep_apart(ticks: Sequence[float], axes: Axes) -> list[float]:
    """The ticks whose labels do not touch the one before."""
    kept, end = [], -math.inf
    for tick in ticks:
        place = axes.transData.transform((tick, 0))[0] * POINTS_PER_INCH / axes.get_figure().dpi
        if place - end > LETTER * len(tick_label(tick)) + 4:
            kept.append(tick)
            end = place
    return kept


def _draw(axes: Axes, mark: Mark, *, gid: str, zorder: int) -> None:
    from matplotlib.transforms import ScaledTranslation

    shift = ScaledTranslation(mark.shift / POINTS_PER_INCH, 0, axes.get_figure().dpi_scale_trans)
    shared: dict[str, Any] = {"gid": gid, "zorder": zorder, "clip_on": False}
    xs, ys = zip(*mark.points, strict=True)
    match mark.kind:
        case "line":
            axes.plot(xs, ys, transform=axes.transData + shift, **shared)
        case "level":
            axes.axhline(ys[0], **shared)
        case "bars":
            axes.stairs(ys[:-1], xs, fill=True, **shared)
        case "dots" | "hollow" | "rings":
            marker, size = MARKERS[mark.series % len(MARKERS)] if mark.series != PAPER_ONLY else MARKERS[0]
            if mark.kind == "rings":
                marker, size = "o", 12
            axes.plot(
                xs, ys, marker=marker, markersize=size, linestyle="none", transform=axes.transData + shift, **shared
            )
        case _:
            raise ValueError(f"no mark of the kind {mark.kind}")


def _group(mark: Mark) -> Group:
    attributes = {f"data-{name}": value for name, value in mark.attributes.items()}
    dashes = f" seed{mark.seed % len(LINE_STYLES)}" if mark.seed % len(LINE_STYLES) else ""
    return Group(
        f"{mark.kind} {series_class(mark.series)}{dashes}", "" if mark.titles else mark.name, mark.titles, attributes
    )


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


# A table's learning curves --------------------------------------------------------------------------------------------


def save_learning_curves(path: Path, panels: Sequence[CurvePanel]) -> None:
    """Writes a PNG with the panels in rows of two and one legend. A curve of one point is a horizontal line."""
    from matplotlib.figure import Figure

    entries, width = legend_entries(panels), min(len(panels), 2)
    rows = math.ceil(len(panels) / width)
    columns = math.ceil(len(entries) / (LEGEND_ROWS * rows))
    figure = Figure(figsize=(4 * width + 1.3 * columns, 3.6 * rows), layout="constrained")
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, width, number + 1)
        for curve in panel.curves:
            if len(curve.points) > 1:
                axes.plot(*zip(*curve.points, strict=True), **curve_style(curve.series, curve.seed))
            elif curve.points:
                axes.axhline(curve.points[0][1], **curve_style(curve.series, 0) | {"linewidth": 1, "marker": ""})
        axes.set(title=panel.title, xlabel="step", ylabel=panel.y_label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    if entries:
        figure.legend(handles=entries, ncols=columns, fontsize="small", loc="outside right upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def curve_style(series: int, seed: int) -> dict[str, Any]:
    """matplotlib's options for the curve of a row and seed. Rows beyond the ten colours differ by their marker."""
    marker, line = MARKERS[series // 10 % len(MARKERS)][0], LINE_STYLES[seed % len(LINE_STYLES)]
    return {"color": f"C{series % 10}", "marker": marker, "markersize": 4, "linestyle": line}


def legend_entries(panels: Sequence[CurvePanel]) -> list[Line2D]:
    """A line for each row that is drawn, and one for each seed where a row has several."""
    from matplotlib.lines import Line2D

    drawn = [curve for panel in panels for curve in panel.curves if curve.points]
    rows = {curve.name: curve_style(curve.series, 0) for curve in drawn}
    seeds = {
        curve.seed_name: {"color": "grey", "linestyle": curve_style(0, curve.seed)["linestyle"]}
        for curve in drawn
        if curve.seed_name
    }
    return [Line2D([], [], label=name, **style) for name, style in (rows | seeds).items()]
