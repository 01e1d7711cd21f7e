"""A table's section of the page: its state, its grid, notes, tests, plots and searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from adept.tables.markdown import agreement
from adept.tables.page.figures import (
    FigureGroup,
    SeriesStyles,
    learning_curves,
    panels,
    scores_over_parameters,
    size_histograms,
)
from adept.tables.page.formatting import signed, thousands, typographic_minus
from adept.tables.page.grid import Grid, make_grid
from adept.tables.page.runs import RunIndex
from adept.tables.page.search import SEARCHED_OPTIONS, SearchList, search_list, sensitivity
from adept.tables.page.views import FILTERS, Attributes, filter_attributes, has_small_test, is_changed
from adept.tables.report import MISSING, View
from adept.tables.significance import SMALL_TEST, chance_difference


@dataclass(frozen=True)
class Changes:
    """What the profile and the command line changed for all runs. fields: "name = value"."""

    profile: str
    fields: Sequence[str]


@dataclass(frozen=True)
class BootstrapLine:
    """A paired bootstrap: a row's difference to ADePT in a column."""

    row: str
    column: str
    difference: str
    interval: str
    p_value: str


@dataclass(frozen=True)
class PaperNote:
    """methods: those whose published numbers the note is about."""

    methods: str
    text: str


@dataclass(frozen=True)
class Section:
    """What the template shows of a table.

    done, planned, missing, pending: numbers of runs. figure_groups: each with its drawings.
    """

    id: str
    title: str
    note: str
    attributes: Attributes
    done: int
    planned: int
    missing: int
    pending: int
    is_compared: bool
    changes: Changes | None
    grid: Grid
    footnotes: Sequence[str]
    bootstraps: Sequence[BootstrapLine]
    figure_groups: Sequence[tuple[FigureGroup, Sequence[Markup]]]
    searches: SearchList | None
    paper_notes: Sequence[PaperNote]


def make_section(view: View, section_id: str, runs: RunIndex) -> Section:
    elsewhere = [name for name in FILTERS if name not in (*view.table.rows, *view.table.columns)]
    return Section(
        id=section_id,
        title=view.table.title,
        note=view.table.note or "",
        attributes=filter_attributes(view.all_cells, elsewhere),
        done=view.planned - view.missing,
        planned=view.planned,
        missing=view.missing,
        pending=view.pending,
        is_compared=view.compared,
        changes=changes(view),
        grid=make_grid(view, runs),
        footnotes=footnotes(view),
        bootstraps=bootstrap_lines(view),
        figure_groups=[(group, group.svgs(section_id)) for group in figure_groups(view)],
        searches=search_list(view, runs),
        paper_notes=paper_notes(view),
    )


def changes(view: View) -> Changes | None:
    if not is_changed(view):
        return None
    return Changes(view.table.profile or "", [f"{name} = {value}" for name, value in view.changed.items()])


def footnotes(view: View) -> list[str]:
    """What the dagger means, how far two ways of scoring agree, and the notes of the records."""
    lines = []
    noise: dict[str, float] = {}  # in points, by task
    for cell in view.all_cells:
        for record in cell.records if has_small_test(cell) else []:
            task = record["config"].get("task", MISSING)
            noise[task] = max(noise.get(task, 0), chance_difference(record))
    if noise:
        points = ", ".join(f"{value:.0f} on {task}" for task, value in noise.items())
        lines.append(
            f"† fewer than {SMALL_TEST} test rows. "
            f"Points by which two single runs must differ to be told apart: {points}."
        )
    return lines + agreement(view) + [f"{note}." for note in view.notes]


def bootstrap_lines(view: View) -> list[BootstrapLine]:
    return [
        BootstrapLine(
            row,
            column,
            signed(-test["difference"]),
            f"{signed(-test['high'])} to {signed(-test['low'])}",
            typographic_minus(f"{test['p']:.2g}"),
        )
        for (row, column), test in view.tests.items()
    ]


def figure_groups(view: View) -> list[FigureGroup]:
    """The groups that have a figure."""
    made, styles = panels(view), SeriesStyles(view)
    groups = [
        learning_curves(made, styles),
        scores_over_parameters(view, made, styles),
        *(sensitivity(view, option) for option in SEARCHED_OPTIONS),
        size_histograms(view),
    ]
    return [group for group in groups if group.figures]


def paper_notes(view: View) -> list[PaperNote]:
    """Whose the published numbers are, and what is not stated."""
    entries = [cell.paper for cell in view.all_cells if cell.paper]
    entries += [entry for row in view.quoted.values() for entry in row.values()]
    methods: dict[str, dict[str, None]] = {}
    for entry in entries:
        if entry.note:
            methods.setdefault(entry.note, {})[entry.method] = None
    return [PaperNote(", ".join(names), note) for note, names in methods.items()]


def progress_text(section: Section) -> str:
    """ "12/30" in the list of contents, or "30" where every run is there."""
    done = thousands(section.done)
    return f"{done}/{thousands(section.planned)}" if section.missing else done
