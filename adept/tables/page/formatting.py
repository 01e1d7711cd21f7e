"""Numbers and texts as the page shows them, and values as its JSON holds them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adept.base.numbers import one_decimal

MAX_TEXT = 240
"""Letters that are kept of a prediction or a reference."""

SHADES = ((5, 3), (2, 2), (0.5, 1))
"""(points of difference from which on, depth of the colour)."""


def thousands(number: float) -> str:
    """12,345."""
    return f"{number:,}"


def typographic_minus(text: str) -> str:
    return text.replace("-", "−")


def signed(value: float, to_text: Callable[[float], str] = one_decimal) -> str:
    """+1.5, −1.5, 0.0. to_text: of the number without its sign."""
    text = typographic_minus(to_text(abs(value)))  # 1e-05
    return ("−" if value < 0 else "+") * bool(text.strip("0.")) + text


def parse_count(text: str) -> float | None:
    """The paper's "76.1K" or "220M" as a number; None for other texts."""
    found = re.match(r"([\d.]+) ?([KMB]?)\b", text)
    return float(found[1]) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9}[found[2]] if found else None


def shade(difference: float) -> str:
    """The class that colours a cell: "up1" to "up3", "down1" to "down3", or "even"."""
    depth = next((depth for points, depth in SHADES if abs(difference) >= points), 0)
    return f"{'up' if difference > 0 else 'down'}{depth}" if depth else "even"


def downsample(items: Sequence[Any], limit: int, keep: Sequence[int] = ()) -> list[Any]:
    """At most `limit` items, evenly spaced, with the first, the last and those at the indices `keep`."""
    if len(items) <= limit:
        return list(items)
    spread = limit - len(keep)
    indices = {round(number * (len(items) - 1) / (spread - 1)) for number in range(spread)} | set(keep)
    return [items[index] for index in sorted(indices)]


def to_json(value: Any) -> Any:
    """A copy that every browser's JSON can hold: numbers have six digits, NaN becomes None, long texts are cut."""
    match value:
        case bool() | int() | None:
            return value
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else None
        case str():
            return truncate(value, 4 * MAX_TEXT)
        case Mapping():
            return {str(key): to_json(item) for key, item in value.items()}
        case _:
            return [to_json(item) for item in value]


def truncate(text: str, limit: int = MAX_TEXT) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def unique_id(name: str, taken: set[str]) -> str:
    """An element's id made from `name` that is not in `taken`; adds it there."""
    slug = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)
    candidates = itertools.chain([slug], (f"{slug}-{number}" for number in itertools.count(2)))
    found = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(found)
    return found
