"""A table's section of the page: its state, its grid, notes, tests, plots and searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from adept.tables.markdown import agreement, measured_on, resampled, small_test_intervals
from adept.tables.page.figures import (
    FigureGroup,
    SeriesStyles,
    learning_curves,
    loss_curves,
    panels,
    scores_over_parameters,
    size_histograms,
)
from adept.tables.page.formatting import signed, thousands
from adept.tables.page.grid import Grid, make_grid
from adept.tables.page.runs import RunIndex
from adept.tables.page.search import SEARCHED_OPTIONS, SearchList, search_list, sensitivity
from adept.tables.page.views import FILTERS, Attributes, filter_attributes, has_small_test, is_changed
from adept.tables.report import View
from adept.tables.significance import SMALL_TEST, p_value_text


@dataclass(frozen=True)
class Changes:
    """What the profile and the command line changed for all runs.

    only: the part of the table that is shown. fields: "name = value".
    """

    profile: str
    only: Sequence[str]
    fields: Sequence[str]


@dataclass(frozen=True)
class BootstrapLine:
    """A paired test: a cell's difference to the baseline."""

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

    done, planned, missing, pending: numbers of runs. baseline: what the paired tests compare with; resampled: what they
    take for random. settings: what configs/base.yaml sets for the table's models. figure_groups: each with its
    drawings.
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
    baseline: str
    resampled: str
    bootstraps: Sequence[BootstrapLine]
    settings: Sequence[str]
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
        baseline=view.baseline_name,
        resampled=resampled(view) if view.tests else "",
        bootstraps=bootstrap_lines(view),
        settings=model_settings(view),
        figure_groups=[(group, group.svgs(section_id)) for group in figure_groups(view)],
        searches=search_list(view, runs),
        paper_notes=paper_notes(view),
    )


def changes(view: View) -> Changes | None:
    if not is_changed(view):
        return None
    only = [f"only {name} = {' or '.join(map(str, values))}" for name, values in view.table.only.items()]
    changed = [f"{name} = {value}" for name, value in view.changed.items()]
    return Changes(view.table.profile or "", only, changed)


def model_settings(view: View) -> list[str]:
    """ "smollm2-135m: targets = words", a line a model."""
    return [
        f"{model}: {', '.join(f'{name} = {value}' for name, value in settings.items())}"
        for model, settings in view.model_settings.items()
    ]


def footnotes(view: View) -> list[str]:
    """What the dagger means, where times were measured, how far two ways of scoring agree, and the records' notes."""
    lines = []
    if any(has_small_test(cell) for cell in view.all_cells):
        lines.append(f"† fewer than {SMALL_TEST} test rows.{small_test_intervals(view)}")
    return lines + measured_on(view) + agreement(view) + [f"{note}." for note in view.notes]


def bootstrap_lines(view: View) -> list[BootstrapLine]:
    return [
        BootstrapLine(
            row,
            column,
            signed(0 - test["difference"]),
            f"{signed(-test['high'])} to {signed(-test['low'])}",
            p_value_text(test["p"]).removeprefix("p = ").removeprefix("p "),
        )
        for (row, column), test in view.tests.items()
    ]


def figure_groups(view: View) -> list[FigureGroup]:
    """The groups that have a figure."""
    made, styles = panels(view), SeriesStyles(view)
    groups = [
        learning_curves(made, styles),
        loss_curves(made, styles),
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
