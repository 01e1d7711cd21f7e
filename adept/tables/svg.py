"""matplotlib's SVG file -> an <svg> element that stands in an HTML page.

Colours, fonts and widths are dropped: the page's style sheet sets them by class. So the element has no inline style,
which the page's content security policy forbids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

GEOMETRY = {"path": ("d",), "use": ("x", "y"), "text": ("x", "y", "transform")}
"""The drawn elements, and their attributes that are kept."""


@dataclass(frozen=True)
class Group:
    """What an artist's group becomes.

    css_class: its classes. title: its tooltip. symbol_titles: the tooltip of each symbol, in the order of the points.
    attributes: further attributes, such as {"data-task": "|rte|"}.
    """

    css_class: str
    title: str = ""
    symbol_titles: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


def inline_svg(source: str, groups: Mapping[str, Group], attributes: Mapping[str, str]) -> str:
    """The element for the SVG file `source`.

    groups: {gid of a matplotlib artist: its group}; the children of other groups move up. attributes: of the <svg>.
    A symbol that is drawn several times is defined once and keeps matplotlib's id; other elements have no id.
    """
    drawing = ElementTree.fromstring(source)
    root = Element("svg", {**attributes, "viewBox": drawing.attrib["viewBox"]})
    _copy_children(drawing, root, groups)
    _place_symbols(
        root, {path.attrib["id"]: _compact_path(path.attrib["d"]) for path in drawing.iterfind(".//{*}defs/{*}path")}
    )
    return ElementTree.tostring(root, encoding="unicode")


def _copy_children(source: Element, target: Element, groups: Mapping[str, Group]) -> None:
    for child in source:
        name = child.tag.rpartition("}")[2]
        if name == "g":
            group = groups.get(child.get("id", ""))
            _copy_children(child, target if group is None else _add_group(target, group), groups)
            if group is not None:
                _add_symbol_titles(target[-1], group.symbol_titles)
        elif name in GEOMETRY:
            _copy_element(child, name, target)


def _add_group(target: Element, group: Group) -> Element:
    element = SubElement(target, "g", {"class": group.css_class, **group.attributes})
    if group.title:
        SubElement(element, "title").text = group.title
    return element


def _add_symbol_titles(group: Element, titles: Sequence[str]) -> None:
    if titles:
        for symbol, title in zip(group.findall("use"), titles, strict=True):
            SubElement(symbol, "title").text = title


def _copy_element(source: Element, name: str, target: Element) -> None:
    element = SubElement(target, name)
    for key in GEOMETRY[name]:
        value = source.get(key, "")
        if key == "d":
            element.set(key, _compact_path(value))
        elif value and not value.startswith("rotate(-0 "):
            element.set(key, _rounded(value))
    if name == "use":
        element.set("href", next(value for key, value in source.attrib.items() if key.endswith("href")))
    if name == "text":
        element.text = source.text
        if anchor := re.search(r"text-anchor: (\w+)", source.get("style", "")):
            element.set("text-anchor", anchor[1])


def _place_symbols(root: Element, symbols: Mapping[str, str]) -> None:
    """Puts a symbol that is drawn once where it is drawn, and defines the others. symbols: {id: its path}."""
    uses: dict[str, list[Element]] = {}
    for use in root.iter("use"):
        uses.setdefault(use.attrib["href"].removeprefix("#"), []).append(use)
    definitions = Element("defs")
    for symbol, elements in uses.items():
        if len(elements) > 1:
            SubElement(definitions, "path", {"id": symbol, "d": symbols[symbol]})
            continue
        (use,) = elements
        use.tag, use.attrib = (
            "path",
            {"d": symbols[symbol], "transform": f"translate({use.attrib['x']} {use.attrib['y']})"},
        )
    if len(definitions):
        root.insert(0, definitions)


def _rounded(text: str) -> str:
    """With one digit behind the point of each number: a tenth of a pixel."""
    return re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda found: f"{round(float(found[0]), 1) + 0.0:g}", text)


def _compact_path(path: str) -> str:
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", _rounded(path)).replace(" -", "-").strip()
