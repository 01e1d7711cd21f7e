"""HTML and SVG from Python. Text is escaped unless it is Markup, so nothing that a record or a YAML file says can become an element."""

from __future__ import annotations

import html
from typing import Any

VOID = {"br", "input"}


class Markup(str):
    """Text that is HTML already."""


def join(*parts: Any, between: str = "") -> Markup:
    """Children one after another; None and "" are left out, lists and generators are taken apart."""
    texts: list[str] = []
    for part in parts:
        if part is None or part == "":
            continue
        if isinstance(part, Markup):
            texts.append(part)
        elif isinstance(part, (str, int, float)):
            texts.append(html.escape(str(part)))
        else:
            texts.append(join(*part))
    return Markup(between.join(texts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """<name attributes>children</name>. `class_` is class and `data_runs` is data-runs; None or False leaves an attribute out, True gives
    it no value."""
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    return Markup(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{join(*children)}</{name}>")
