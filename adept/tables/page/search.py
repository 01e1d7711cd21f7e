"""The configurations among which validation chose: a plot for each option that was searched, and the list of all."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adept.config.identities import model_label
from adept.tables.cell import MISSING, Cell
from adept.tables.page.figures import Figure, FigureGroup, legend_entry, series_numbers
from adept.tables.page.formatting import typographic_minus
from adept.tables.page.runs import RunIndex
from adept.tables.page.views import Attributes, is_score
from adept.tables.plots import Chart, Mark
from adept.tables.report import View
from adept.tables.search import Configuration, configurations, option_text, searched_options
from adept.tables.table import QUANTITY

SEARCHED_OPTIONS = ("prompt_lr", "offset_lr", "lr", "prompt_len", "bottleneck", "rank")
"""Options whose searched values are drawn against the scores."""

MAX_TICKS = 8
"""Searched values up to which each is labelled."""

SERIES_DISTANCE, SPLIT_DISTANCE = 11, 5
"""Points between the symbols of two series, and between those of validation and test, at the same value."""


def scored_cells(view: View) -> list[Cell]:
    return [cell for cell in view.all_cells if is_score(cell)]


# Plots ----------------------------------------------------------------------------------------------------------------

Series = Mapping[tuple[str, ...], Sequence[Configuration]]
"""{parts of the series' name: its configurations}."""


def sensitivity(view: View, option: str) -> FigureGroup:
    """Scores over the values of `option`: a figure for each task and model, a series for each row or column of them."""
    by_figure = {
        figure: varied
        for figure, series in sensitivity_series(view, option).items()
        if (varied := {name: tried for name, tried in series.items() if len({one.config[option] for one in tried}) > 1})
    }
    numbers = series_numbers({name: name[0] for series in by_figure.values() for name in series})
    figures = [sensitivity_figure(task, model, series, numbers, option) for (task, model), series in by_figure.items()]
    legend = []
    for name, number in numbers.items():
        members = [one for series in by_figure.values() for one in series.get(name, [])]
        legend.append(legend_entry(" ".join(name), number, method_attributes(members)))
    explanation = (
        "Every configuration that was searched, by the seeds that all of a cell have: filled is test, hollow is "
        "validation, ringed is chosen; the line is the mean of validation."
    )
    return FigureGroup(f"Sensitivity to {option}", legend, explanation, figures)


def sensitivity_series(view: View, option: str) -> dict[tuple[str, str], dict[tuple[str, ...], list[Configuration]]]:
    """{(task, model): {parts of the series' name: configurations that have both scores and a number for `option`}}."""
    axes = [axis for axis in (*view.table.rows, *view.table.columns) if axis not in (option, "task", "model", QUANTITY)]
    found: dict[tuple[str, str], dict[tuple[str, ...], list[Configuration]]] = {}
    for tried in configurations(scored_cells(view)):
        config = tried.cell.config
        is_scored = tried.validation is not None and tried.test is not None
        if config and is_scored and isinstance(tried.config.get(option), (int, float)):
            values = [config.get(axis) for axis in ("method", *axes)]
            name = tuple(dict.fromkeys(str(value) for value in values if value is not None))
            found.setdefault((config.task, model_label(config.model)), {}).setdefault(name, []).append(tried)
    return found


def sensitivity_figure(
    task: str, model: str, series: Series, numbers: Mapping[tuple[str, ...], int], option: str
) -> Figure:
    values = sorted({one.config[option] for tried in series.values() for one in tried})
    marks: list[Mark] = []
    for place, (name, tried) in enumerate(series.items()):
        shift = SERIES_DISTANCE * (place - (len(series) - 1) / 2)
        marks += series_marks(" ".join(name), numbers[name], tried, option, shift)
    names = ", ".join(" ".join(name) for name in series)
    description = f"Scores over {option}, {task}: {names} at {', '.join(f'{value:g}' for value in values)}"
    chart = Chart(
        marks,
        option,
        "score",
        description,
        log_x=min(values) > 0 and max(values) >= 8 * min(values),
        x_ticks=values if len(values) <= MAX_TICKS else None,
    )
    label, metric = f"{task} {model}", next(iter(series.values()))[0].cell.metric
    attributes = {"task": f"|{task}|", "model": f"|{model}|"}
    return Figure(label, "" if metric in label else metric, chart, attributes)


def series_marks(label: str, number: int, tried: Sequence[Configuration], option: str, shift: float) -> list[Mark]:
    """The mean of validation as a line; validation and test of each configuration; rings around the chosen one."""
    attributes = method_attributes(tried)
    by_value: dict[float, list[float]] = {}
    for one in tried:
        by_value.setdefault(one.config[option], []).append(one.validation)
    means = [(value, statistics.mean(scores)) for value, scores in sorted(by_value.items())]
    marks = [Mark("line", number, means, name=f"{label}: mean validation score", shift=shift, attributes=attributes)]
    for kind, split, aside in (("hollow", "validation", -SPLIT_DISTANCE / 2), ("dots", "test", SPLIT_DISTANCE / 2)):
        points = [(one.config[option], getattr(one, split)) for one in tried]
        titles = [
            f"{label}, {split} {score:.1f} at {value:g}{', chosen' if one.chosen else ''}"
            for one, (value, score) in zip(tried, points, strict=True)
        ]
        shared = {"shift": shift + aside, "attributes": attributes}
        marks.append(Mark(kind, number, points, titles=titles, **shared))
        chosen = [point for one, point in zip(tried, points, strict=True) if one.chosen]
        if chosen:
            marks.append(Mark("rings", number, chosen, **shared))
    return marks


def method_attributes(members: Sequence[Configuration]) -> Attributes:
    return {"method": f"|{'|'.join(dict.fromkeys(one.cell.config.method for one in members))}|"}


# The list -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SearchLine:
    """A configuration in the list. records: (seed, address of the record)."""

    label: str
    values: Sequence[str]
    scores: Sequence[str]
    chosen: bool
    records: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class SearchList:
    """options: those that differ between the configurations, in the order of each line's values."""

    options: Sequence[str]
    lines: Sequence[SearchLine]


def search_list(view: View, runs: RunIndex) -> SearchList | None:
    """Every configuration of the cells where validation had a choice; None where it had none."""
    cells = [cell for cell in scored_cells(view) if len(cell.configurations) > 1]
    if not cells:
        return None
    options = searched_options(view, cells)
    return SearchList(options, [search_line(tried, options, runs) for tried in configurations(cells)])


def search_line(tried: Configuration, options: Sequence[str], runs: RunIndex) -> SearchLine:
    return SearchLine(
        f"{tried.cell.row} {tried.cell.column}",
        [option_text(tried.config.get(name)) for name in options],
        [MISSING if score is None else typographic_minus(f"{score:.1f}") for score in (tried.validation, tried.test)],
        tried.chosen,
        [
            (str(record["config"].get("seed", "record")), runs.record_address(record["run_id"]))
            for record in tried.records
        ],
    )
