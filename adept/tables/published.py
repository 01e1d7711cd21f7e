"""The paper's numbers (results/published/tableN.csv)."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from adept.base.paths import ROOT

PUBLISHED = ROOT / "results" / "published"


@dataclass(frozen=True)
class Published:
    """One number of the paper (results/published/tableN.csv)."""

    method: str
    row: str
    column: str
    value: float | None
    std: float | None
    params: str
    note: str


def published(name: str) -> list[Published]:
    """The paper's numbers of a table; none where the paper has no such table."""
    path = PUBLISHED / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Published(
                line["method"], line["row"], line["column"], float(line["value"]) if line["value"] else None,
                float(line["std"]) if line["std"] else None, line["params"], line["note"],
            )
            for line in csv.DictReader(file)
        ]  # fmt: skip
