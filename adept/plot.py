"""Small charts as inline SVG: lines, symbols, levels and histograms over two axes. Colours and letters are the style sheet's.

A series is known by its number: class s0, s1, ... gives its colour and `symbol` its shape, so that none is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from adept.markup import Markup, join, tag

WIDTH, HEIGHT = 320, 204
LEFT, RIGHT, TOP, BOTTOM = 38, 310, 8, 164
STYLES = 8
"""Colours and shapes that page.css and SHAPES tell apart; later series begin again, dashed."""

SHAPES = ((0, 0), (4, 45), (4, 0), (3, 270), (3, 90), (6, 0), (3, 180), (3, 0))
"""(corners, turned by degrees) of each series' symbol; 0 corners are a circle."""


@dataclass(frozen=True)
class Mark:
    """What is drawn of a series. kind: "line" through its points, "dots" or "hollow" symbols at them, "rings" around them, a "level" at the
    first point's y, or "bars": (left edge, height) of each bin, the last height 0. titles: what a pointer over a symbol tells."""

    kind: str
    series: int
    points: Sequence[tuple[float, float]]
    name: str = ""
    titles: Sequence[str] = ()
    shift: float = 0.0  # pixels to the right
    facts: dict[str, str] = field(default_factory=dict)  # attributes by which the page's filter finds it


class Axis:
    """Values to pixels. ticks: values that are written; None chooses round ones."""

    def __init__(
        self, values: Sequence[float], pixels: tuple[float, float], *, log: bool = False, least: float = 0, floor: float | None = None
    ):
        """least: the smallest span, in decades where log; floor: where the axis begins, without a margin below."""
        low, high = (math.log10(v) if log else v for v in (min(values), max(values)))
        least = least or (0 if low < high else abs(high) or 1)
        if high - low < least:
            low, high = (low + high - least) / 2, (low + high + least) / 2
        margin = 0.05 * (high - low)
        self.low, self.high = (low - margin if floor is None else floor), high + margin
        self.log, self.pixels = log, pixels

    def __call__(self, value: float) -> float:
        share = ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)
        return round(self.pixels[0] + share * (self.pixels[1] - self.pixels[0]), 1)

    def ticks(self, count: int) -> list[float]:
        if not self.log:
            rough = (self.high - self.low) / count
            unit = 10 ** math.floor(math.log10(rough))
            step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
            first = math.ceil(self.low / step - 1e-9)
            return [round(number * step, 12) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        fine = (1, 2, 5) if self.high - self.low < 2 else (1,)
        every = 1 + int(self.high - self.low) // 6
        ticks = [factor * 10.0**decade for decade in decades[::every] for factor in fine]
        return [tick for tick in ticks if self.low <= math.log10(tick) <= self.high]


def short(value: float) -> str:
    """A tick's label: 20, 0.5, 76k, 1.5M, 1e-4."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.6g}".replace("-", "−")


def symbol(series: int, x: float, y: float, title: str = "", size: float = 3.4) -> Markup:
    corners, turned = SHAPES[series % STYLES] if series >= 0 else SHAPES[0]
    told = tag("title", title) if title else None
    if not corners:
        return tag("circle", told, cx=f"{x:g}", cy=f"{y:g}", r=size)
    angles = [math.radians(turned + 360 * corner / corners) for corner in range(corners)]
    reach = size * (1.5 if corners == 3 else 1.25)
    points = " ".join(f"{x + reach * math.cos(a):.1f},{y + reach * math.sin(a):.1f}" for a in angles)
    return tag("polygon", told, points=points)


def style(series: int) -> str:
    """The classes of a series: its colour, and a dash where the colours begin again; grey below 0."""
    if series < 0:
        return "quoted"
    return f"s{series % STYLES}" + (" again" if series >= STYLES else "")


def chart(
    marks: Sequence[Mark],
    *,
    x: str,
    y: str,
    label: str,
    log: bool = False,
    x_ticks: Sequence[float] | None = None,
    floor: float | None = None,
) -> Markup:
    """An SVG with axes titled `x` and `y`; `label` says in words what it shows. log: of the x axis. floor: where the y axis begins."""
    across = [point[0] for mark in marks if mark.kind != "level" for point in mark.points] or [0.0, 1.0]
    up = [point[1] for mark in marks for point in mark.points]
    horizontal = Axis(across, (LEFT + 6, RIGHT - 4), log=log, least=log)
    vertical = Axis(up, (BOTTOM, TOP), least=2 if floor is None else 0, floor=floor)
    parts: list[Markup] = []
    for tick in vertical.ticks(4):
        parts.append(tag("line", class_="grid", x1=LEFT, x2=RIGHT, y1=vertical(tick), y2=vertical(tick)))
        parts.append(tag("text", short(tick), class_="tick", x=LEFT - 5, y=round(vertical(tick) + 3.5, 1), text_anchor="end"))
    last = -math.inf
    for tick in sorted(x_ticks) if x_ticks is not None else horizontal.ticks(5):
        place = horizontal(tick)
        if place - last > 6 * len(short(tick)) + 4:  # labels keep apart
            parts.append(tag("text", short(tick), class_="tick", x=place, y=BOTTOM + 14, text_anchor="middle"))
            last = place
    parts.append(tag("line", class_="axis", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM))
    parts.append(tag("text", x, class_="name", x=(LEFT + RIGHT) // 2, y=HEIGHT - 8, text_anchor="middle"))
    parts.append(
        tag("text", y, class_="name", transform=f"rotate(-90 9 {(TOP + BOTTOM) // 2})", x=9, y=(TOP + BOTTOM) // 2, text_anchor="middle")
    )
    parts += [draw(mark, horizontal, vertical) for mark in marks]
    return tag("svg", *parts, role="img", aria_label=label, viewBox=f"0 0 {WIDTH} {HEIGHT}")


def draw(mark: Mark, horizontal: Axis, vertical: Axis) -> Markup:
    places = [] if mark.kind == "level" else [(horizontal(x) + mark.shift, vertical(y)) for x, y in mark.points]
    body: list[Markup] = [tag("title", mark.name)] if mark.name and not mark.titles else []
    match mark.kind:
        case "line":
            body.append(tag("polyline", points=" ".join(f"{x:g},{y:g}" for x, y in places)))
        case "level":
            body.append(tag("line", x1=LEFT, x2=RIGHT, y1=vertical(mark.points[0][1]), y2=vertical(mark.points[0][1])))
        case "bars":
            path = "".join(f"H{x:g}V{y:g}" for x, y in places)
            body.append(tag("path", d=f"M{places[0][0]:g},{BOTTOM}{path}V{BOTTOM}Z"))
        case "rings":
            body += [symbol(0, x, y, size=6) for x, y in places]
        case "dots" | "hollow":
            titles = mark.titles or [""] * len(places)
            body += [symbol(mark.series, x, y, title) for (x, y), title in zip(places, titles, strict=True)]
    return tag("g", *body, class_=f"{mark.kind} {style(mark.series)}", **{f"data_{name}": value for name, value in mark.facts.items()})


def legend(names: Sequence[tuple[str, int, dict[str, str]]], *told: str) -> Markup:
    """(name, series, facts) of each, with its line and symbol; `told`: what the kinds of marks mean."""
    entries = [
        tag(
            "li",
            tag(
                "svg",
                tag("g", tag("polyline", points="1,7 27,7"), class_=f"line {style(series)}"),
                tag("g", symbol(series, 14, 7), class_=f"dots {style(series)}"),
                viewBox="0 0 28 14", aria_hidden="true",
            ),
            name,
            **{f"data_{key}": value for key, value in facts.items()},
        )
        for name, series, facts in names
    ]  # fmt: skip
    return join(tag("ul", *entries, class_="legend"), tag("p", " ".join(told), class_="told") if told else None)
