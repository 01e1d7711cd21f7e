"""Reads a page strictly, and asserts what holds of every page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest


class Reader(HTMLParser):
    """Reads a page strictly: raises for elements that do not close in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.inside: dict[int, str] = {}  # the text of each element, its children's included
        self.path: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, name, attributes):
        self.path.append(len(self.elements))
        self.inside[len(self.elements)] = ""
        self.elements.append((name, dict(attributes)))
        self.open.append(name)
        assert len(dict(attributes)) == len(attributes), f"twice the same attribute: {attributes}"
        if name in ("meta", "input", "br", "link", "img"):
            self.handle_endtag(name)

    def handle_endtag(self, name):
        assert self.open and self.open.pop() == name, f"{name} closes, {self.open[-3:]} are open"
        self.path.pop()

    def handle_data(self, data):
        for number in self.path:
            self.inside[number] += data

    def all(self, name: str, class_: str | None = None) -> list[tuple[dict, str]]:
        return [
            (attributes, self.inside[number])
            for number, (found, attributes) in enumerate(self.elements)
            if found == name and (class_ is None or class_ in (attributes.get("class") or "").split())
        ]

    @property
    def data(self) -> dict:
        ((_, text),) = [found for found in self.all("script") if found[0].get("id") == "data"]
        return json.loads(text)

    def cell(self, row: str, column: str) -> tuple[dict, str]:
        """The first table's cell: (its attributes, its text)."""
        first = next(number for number, (name, _) in enumerate(self.elements) if name == "table")
        heads = [
            self.inside[n]
            for n, (name, own) in enumerate(self.elements)
            if name == "th" and n > first and own.get("scope") == "col"
        ]
        place = next(number for number, text in enumerate(heads) if text.startswith(column))
        number = next(
            n
            for n, (name, own) in enumerate(self.elements)
            if name == "th" and self.inside[n] == row and own.get("scope") == "row"
        )
        cells = [n for n, (name, _) in enumerate(self.elements) if n > number and name == "td"]
        return self.elements[cells[place - 1]][1], self.inside[cells[place - 1]]


def check(text: str, folder: Path) -> Reader:
    """What holds of every page. `folder`: where it stands."""
    read = Reader(text)
    ids = [own["id"] for _, own in read.elements if "id" in own]
    assert len(ids) == len(set(ids))
    for name, own in read.elements:
        assert not [key for key in own if key.startswith("on") or key in ("src", "style", "srcset", "action")], (
            name,
            own,
        )
        for reference in (own.get("aria-labelledby") or "").split():
            assert reference in ids
        if name == "a":
            if own["href"].startswith("#"):
                assert unquote(own["href"][1:]) in ids, own
            else:
                assert (folder / unquote(own["href"])).is_file(), own
        elif name == "use":
            assert own["href"].startswith("#") and own["href"][1:] in ids, own
        elif "href" in own:
            pytest.fail(f"{name} loads {own['href']}")
        if name == "th":
            assert own.get("scope") in ("row", "col", "rowgroup")
    assert {name for name, _ in read.elements}.isdisjoint({"img", "iframe", "link", "object", "base"})
    for own, _ in read.all("script"):
        assert own in ({}, {"type": "application/json", "id": "data"})
    assert len(read.all("script")) == 2 and len(read.all("style")) == 1
    (look,) = [text for _, text in read.all("style")]
    assert not re.search(r"url\(|@import|https?:", look)
    return read
