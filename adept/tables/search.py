"""What validation chose among: the configurations of each cell that was searched, and how they differ."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adept.base.options import is_place
from adept.config.run import OPTIONS
from adept.tables.cell import MISSING, Cell
from adept.tables.report import View

OF_SEEDS = ("seed", "init_from")
"""Options in which the runs of one configuration may differ."""


@dataclass(frozen=True)
class Configuration:
    """A configuration that was tried for a cell, with its mean scores over the seeds that all of the cell's have.

    The chosen one has more seeds, and over these its mean is mostly lower: the search took the best of one seed's.
    """

    cell: Cell
    records: list[dict]
    validation: float | None
    test: float | None

    @property
    def chosen(self) -> bool:
        return self.records[0]["run_id"] in {record["run_id"] for record in self.cell.records}

    @property
    def config(self) -> Mapping[str, Any]:
        return self.records[0]["config"]


def configurations(cells: Sequence[Cell]) -> list[Configuration]:
    """Every configuration of the cells, once each."""
    found: dict[tuple[str, ...], Configuration] = {}
    for cell in cells:
        seeds = [{record["config"].get("seed") for record in records} for records in cell.configurations]
        common = set.intersection(*seeds) if seeds else set()
        for records in cell.configurations:
            selects = records[0]["config"].get("select_on") or cell.metric
            compared = [record for record in records if record["config"].get("seed") in common] or records
            validation = mean_score(compared, "validation", selects, cell.metric)
            tried = Configuration(cell, records, validation, mean_score(compared, "test", cell.metric))
            found.setdefault(tuple(record["run_id"] for record in records), tried)
    return list(found.values())


def mean_score(records: Sequence[dict], split: str, *metrics: str) -> float | None:
    """Of the first of `metrics` that a record has."""
    for metric in metrics:
        values = [record[split][metric] for record in records if record[split].get(metric) is not None]
        if values:
            return statistics.mean(values)
    return None


def searched_cells(view: View) -> list[Cell]:
    """The cells of scores where validation had a choice."""
    return [cell for cell in view.all_cells if cell.is_score and len(cell.configurations) > 1]


def searched_options(view: View, cells: Sequence[Cell]) -> list[str]:
    """The options in which configurations of the cells differ, without those that a cell stands for and those that
    only say where and how a run was computed.
    """
    configs = [records[0]["config"] for cell in cells for records in cell.configurations]
    known = {*view.table.rows, *view.table.columns, *OF_SEEDS}
    return [
        name
        for name, field in OPTIONS.items()
        if name not in known and not is_place(field) and len({str(config.get(name)) for config in configs}) > 1
    ]


def configuration_text(config: Mapping[str, Any], options: Sequence[str]) -> str:
    """ "prompt_lr = 0.01, bottleneck = 8"."""
    return ", ".join(f"{name} = {option_text(config.get(name))}" for name in options)


def option_text(value: object) -> str:
    if value is None:
        return MISSING
    return f"{value:g}" if isinstance(value, float) else str(value)


def search_csv(view: View) -> str:
    """One line a configuration of the searched cells: its cell, its options, its scores, its runs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "column", "configuration", "validation", "test", "chosen", "run_ids"])
    for cell in searched_cells(view):
        options = searched_options(view, [cell])
        for tried in configurations([cell]):
            scores = ["" if score is None else f"{score:.6g}" for score in (tried.validation, tried.test)]
            ids = " ".join(record["run_id"] for record in tried.records)
            text = configuration_text(tried.config, options)
            writer.writerow([cell.row, cell.column, text, *scores, int(tried.chosen), ids])
    return out.getvalue()
