"""The paper's numbers (results/published/tableN.csv)."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from adept.base.paths import ROOT

PUBLISHED = ROOT / "results" / "published"


@dataclass(frozen=True)
class Published:
    """One number of the paper: a line of results/published/tableN.csv."""

    method: str
    """As the paper prints it."""
    row: str
    """The row of our table that it belongs to; "" for a method that is not run here."""
    column: str
    value: float | None
    """None where the paper's number is lost."""
    std: float | None
    params: str
    """The number of trained parameters, as the paper prints it."""
    note: str


def published(name: str) -> list[Published]:
    """The paper's numbers of a table. Empty for a table that the paper does not have."""
    path = PUBLISHED / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Published(
                method=line["method"],
                row=line["row"],
                column=line["column"],
                value=float(line["value"]) if line["value"] else None,
                std=float(line["std"]) if line["std"] else None,
                params=line["params"],
                note=line["note"],
            )
            for line in csv.DictReader(file)
        ]
