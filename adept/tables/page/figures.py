"""The plots of a table's section: what is drawn, in which figures, and the legends.

A panel is one small chart. Its series are the table's rows, or its columns where the rows are tasks.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from markupsafe import Markup

from adept.methods import METHODS
from adept.tables.page.formatting import downsample, parse_count, thousands
from adept.tables.page.views import (
    FILTERS,
    Attributes,
    column_attributes,
    column_label,
    filter_attributes,
    is_score,
    records_of,
    row_attributes,
)
from adept.tables.plots import PAPER_ONLY, Chart, Mark, chart_svg, swatch_svg
from adept.tables.report import Cell, View

CURVE_POINTS, CURVE_SYMBOLS = 100, 6
"""Evaluations of a run that are drawn as a line, and as symbols on it, at most."""

EMBEDDINGS_SERIES, OFFSET_SERIES = 0, 5
"""Numbers of the two series of a histogram."""

Key = TypeVar("Key", bound=Hashable)


# What the templates show ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LegendEntry:
    name: str
    swatch: Markup
    attributes: Attributes


@dataclass(frozen=True)
class Figure:
    """A chart with its caption. lines: texts below it; attributes: by which the page filters."""

    caption: str
    metric: str
    chart: Chart
    attributes: Attributes = field(default_factory=dict)
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class FigureGroup:
    """Figures that share a title, a legend and an explanation of their marks."""

    title: str
    legend: Sequence[LegendEntry]
    explanation: str
    figures: Sequence[Figure]
    opened: bool = False

    def svgs(self, section: str) -> list[Markup]:
        """The drawings. section: the id of the section that they stand in, which keeps the ids inside them apart."""
        return [
            Markup(chart_svg(figure.chart, f"{section} {self.title} {number}"))
            for number, figure in enumerate(self.figures)
        ]


def legend_entry(name: str, series: int, attributes: Attributes) -> LegendEntry:
    return LegendEntry(name, Markup(swatch_svg(series)), attributes)


# Panels and series ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """Cells of one task beside each other. key: the column's or row's name; cells: {name of the series: cell}."""

    key: str
    label: str
    metric: str
    cells: Mapping[str, Cell]
    attributes: Attributes

    def figure(self, chart: Chart) -> Figure:
        return Figure(self.label, "" if self.metric in self.label else self.metric, chart, self.attributes)


def panels(view: View) -> list[Panel]:
    """A panel for each column of scores, or for each row where rows are tasks."""
    made = []
    if "task" in view.table.rows:
        for row, by_column in view.cells.items():
            metric = next((cell.metric for cell in by_column.values() if cell.metric), "score")
            made.append(Panel(row, row, metric, by_column, row_attributes(view, row)))
    else:
        for column, metric in view.columns.items():
            cells = {row: by_column[column] for row, by_column in view.cells.items() if column in by_column}
            attributes = column_attributes(view, column)
            made.append(Panel(column, column_label(view, column), metric or "score", cells, attributes))
    return [panel for panel in made if panel.cells and all(is_score(cell) for cell in panel.cells.values())]


def series_numbers(methods: Mapping[Key, str]) -> dict[Key, int]:
    """{series: its number}. methods: {series: its method}.

    The number is the method's where no two series share a method, so that a method looks alike on the whole page.
    """
    order = list(METHODS)
    if len(set(methods.values())) == len(methods) and all(method in order for method in methods.values()):
        return {name: order.index(method) for name, method in methods.items()}
    return {name: number for number, name in enumerate(methods)}


class SeriesStyles:
    """Numbers and filter attributes of a table's series; PAPER_ONLY for a series that was not run."""

    def __init__(self, view: View):
        if "task" in view.table.rows:
            self.attributes = {column: column_attributes(view, column) for column in view.columns}
        else:
            self.attributes = {row: row_attributes(view, row) for row in view.cells}
        methods = {
            name: known["method"].strip("|") if "method" in known else name
            for name, known in self.attributes.items()
            if known
        }
        self.numbers = dict.fromkeys(self.attributes, PAPER_ONLY) | series_numbers(methods)

    def of(self, name: str) -> dict[str, Any]:
        """Arguments of a Mark."""
        return {"series": self.numbers[name], "attributes": self.attributes[name]}

    def legend(self, names: Iterable[str]) -> list[LegendEntry]:
        shown = set(names)
        return [
            legend_entry(name, self.numbers[name], known) for name, known in self.attributes.items() if name in shown
        ]


# Learning curves ------------------------------------------------------------------------------------------------------


def learning_curves(made: Sequence[Panel], styles: SeriesStyles) -> FigureGroup:
    """A figure for each panel that has a run with several evaluations."""
    figures, legend = curve_figures(made, styles, curve_points, "validation", "Validation score", ".1f")
    explanation = "Validation score of the chosen runs, a line for each seed; what is evaluated once is a level."
    return FigureGroup("Learning curves", legend, explanation, figures, opened=True)


def loss_curves(made: Sequence[Panel], styles: SeriesStyles) -> FigureGroup:
    """A figure for each panel that has a run with several evaluations, of the training loss at each."""
    figures, legend = curve_figures(made, styles, loss_points, "training loss", "Training loss", ".3g")
    explanation = "Mean training loss of the chosen runs since the evaluation before, a line for each seed."
    return FigureGroup("Training loss", legend, explanation, figures)


def curve_figures(
    made: Sequence[Panel],
    styles: SeriesStyles,
    points_of: Callable[[dict, Cell], list[tuple[int, float]]],
    axis: str,
    what: str,
    spec: str,
) -> tuple[list[Figure], list[LegendEntry]]:
    """(a figure for each panel with a curve of several points, their legend: the series, and the seeds if several)."""
    figures, shown = [], set()
    seeds = seed_numbers(record for panel in made for cell in panel.cells.values() for record in cell.records)
    for panel in made:
        marks, last_values = [], []
        for name, cell in panel.cells.items():
            curves = [(points, record) for record in cell.records if (points := points_of(record, cell))]
            for points, record in curves:
                marks += curve_marks(name, points, record, seeds[record["config"].get("seed")], styles, spec)
            if curves:
                last_values.append(f"{name} ends at {curves[0][0][-1][1]:{spec}}")
                shown.add(name)
        if any(mark.kind == "line" for mark in marks):
            description = f"{what} over steps, {panel.label}: {'; '.join(last_values)}"
            figures.append(panel.figure(Chart(marks, "step", axis, description)))
    return figures, styles.legend(shown) + (seed_legend(seeds) if len(seeds) > 1 else [])


def seed_numbers(records: Iterable[Mapping[str, Any]]) -> dict[int | None, int]:
    """{seed: its number}, the smallest first; None for records without a seed."""
    seeds = {record["config"].get("seed") for record in records}
    return {seed: number for number, seed in enumerate(sorted(seeds, key=lambda seed: (seed is not None, seed or 0)))}


def seed_legend(seeds: Mapping[int | None, int]) -> list[LegendEntry]:
    return [
        LegendEntry(f"seed {'?' if seed is None else seed}", Markup(swatch_svg(PAPER_ONLY, number)), {})
        for seed, number in seeds.items()
    ]


def loss_points(record: dict, cell: Cell) -> list[tuple[int, float]]:
    """(step, training loss) of a run that was evaluated more than once."""
    losses = [
        (entry["step"], entry["train_loss"]) for entry in record["history"] if entry.get("train_loss") is not None
    ]
    return downsample(losses, CURVE_POINTS) if len(losses) > 1 else []


def curve_points(record: dict, cell: Cell) -> list[tuple[int, float]]:
    """(step, validation score) of the printed metric, or of the metric that selects where only that was validated."""
    selects = record["config"].get("select_on") or cell.metric
    metric = cell.metric if any(cell.metric in entry["validation"] for entry in record["history"]) else selects
    scores = [(entry["step"], entry["validation"].get(metric)) for entry in record["history"]]
    return downsample([(step, score) for step, score in scores if score is not None], CURVE_POINTS)


def curve_marks(
    name: str, points: Sequence[tuple[int, float]], record: dict, seed: int, styles: SeriesStyles, spec: str
) -> list[Mark]:
    """The line of a run and its symbols. seed: the number of its seed; spec: how its values are written."""
    step, score = points[-1]
    title = f"{name}, seed {record['config'].get('seed', '?')}: {score:{spec}} at step {thousands(step)}"
    if len(points) == 1:
        return [Mark("level", points=points, name=title, **styles.of(name))]
    symbols = downsample(points, CURVE_SYMBOLS)
    titles = [f"{name}: {score:{spec}} at step {thousands(step)}" for step, score in symbols]
    return [
        Mark("line", points=points, name=title, seed=seed, **styles.of(name)),
        Mark("dots", points=symbols, titles=titles, **styles.of(name)),
    ]


# Scores and parameters ------------------------------------------------------------------------------------------------


def scores_over_parameters(view: View, made: Sequence[Panel], styles: SeriesStyles) -> FigureGroup:
    """Test score over trained parameters, ours and the paper's; a figure where the numbers of parameters differ."""
    figures, shown = [], set()
    has_paper = False
    for panel in made:
        marks: list[Mark] = []
        for name, cell in panel.cells.items():
            found = parameter_marks(view, name, cell, styles)
            marks += found
            shown |= {name} if found else set()
        marks += paper_only_marks(view, panel)
        has_paper = has_paper or any(mark.kind == "hollow" for mark in marks)
        across = [x for mark in marks if mark.kind != "level" for x, _ in mark.points]
        if any(mark.kind == "dots" for mark in marks) and max(across) >= 2 * min(across):
            texts = "; ".join(title for mark in marks for title in (mark.titles or [mark.name]))
            description = f"Test score over trained parameters, {panel.label}: {texts}"
            figures.append(panel.figure(Chart(marks, "trained parameters", "test", description, log_x=True)))
    explanation = "Test score; a level has nothing to train."
    if has_paper:
        explanation += " Hollow: the paper; small circles: methods not run here."
    return FigureGroup("Score and trained parameters", styles.legend(shown), explanation, figures)


def parameter_marks(view: View, name: str, cell: Cell, styles: SeriesStyles) -> list[Mark]:
    """Our score and the paper's."""
    marks = []
    counts = [record["trainable_params"] for record in records_of(cell)]
    if cell.mean is not None and counts:
        count = statistics.mean(counts)
        title = f"{name}: {cell.mean:.1f} with {thousands(round(count))} trained parameters"
        marks.append(
            Mark("dots", points=[(count, cell.mean)], titles=[title], **styles.of(name))
            if count
            else Mark("level", points=[(count, cell.mean)], name=title, **styles.of(name))
        )
    if cell.paper and cell.paper.value is not None and (count := parse_count(cell.paper.params)):
        title = f"{name} in the paper: {cell.paper.value:g} with {cell.paper.params}"
        marks.append(Mark("hollow", points=[(count, cell.paper.value)], titles=[title], **styles.of(name)))
    return marks


def paper_only_marks(view: View, panel: Panel) -> list[Mark]:
    """Methods that only the paper has, in the panel's column."""
    points, titles = [], []
    for method, by_column in view.quoted.items():
        entry = by_column.get(panel.key)
        if entry and entry.value is not None and (count := parse_count(entry.params)):
            points.append((count, entry.value))
            titles.append(f"{method} in the paper: {entry.value:g} with {entry.params}")
    return [Mark("hollow", PAPER_ONLY, points, titles=titles)] if points else []


# Sizes of embeddings and offsets --------------------------------------------------------------------------------------


def size_histograms(view: View) -> FigureGroup:
    """Norms of embeddings and offsets; a figure for each record that measured them."""
    measured = {
        record["run_id"]: (cell, record) for cell in view.all_cells for record in cell.records if record.get("offsets")
    }
    figures = [figure for cell, record in measured.values() if (figure := size_histogram(cell, record))]
    legend = [legend_entry("embeddings", EMBEDDINGS_SERIES, {}), legend_entry("offset", OFFSET_SERIES, {})]
    explanation = "Euclidean norms of the training set's tokens, share in each bin."
    return FigureGroup("Sizes of embeddings and offsets", legend, explanation, figures)


def size_histogram(cell: Cell, record: dict) -> Figure | None:
    marks = []
    for series, name in ((EMBEDDINGS_SERIES, "embeddings"), (OFFSET_SERIES, "offset")):
        sizes = record["offsets"].get(name)
        if sizes and sum(sizes["norms"]["counts"]):
            title = f"{name}: |element| {sizes['mean']:.3g} on average, variance {sizes['variance']:.3g}"
            marks.append(Mark("bars", series, histogram(sizes["norms"]["edges"], sizes["norms"]["counts"]), name=title))
    if not marks:
        return None
    label = " ".join(str(record["config"][key]) for key in ("method", "task", "seed") if key in record["config"])
    lines = [mark.name for mark in marks]
    description = f"Norms of tokens, {label}: {'; '.join(lines)}"
    chart = Chart(marks, "Euclidean norm", "share of tokens", description, log_x=True, y_min=0)
    return Figure(label, "", chart, filter_attributes([cell], FILTERS), lines)


def histogram(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[float, float]]:
    """(left edge, share) of the occupied bins, and (right edge, 0).

    The axis is logarithmic: a bin that begins at 0 is drawn from half its right edge on.
    """
    total = sum(counts)
    occupied = [number for number, count in enumerate(counts) if count]
    bins = range(occupied[0], occupied[-1] + 1)
    left = [edges[number] or edges[number + 1] / 2 for number in bins]
    return [*zip(left, (counts[number] / total for number in bins), strict=True), (edges[occupied[-1] + 1], 0.0)]
