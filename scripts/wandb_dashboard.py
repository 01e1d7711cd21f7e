"""A table's tracked runs -> a report on wandb that compares its methods: our table, curves, bars and the search, task
by task.

python scripts/wandb_dashboard.py configs/table12.yaml [--entity ME] [--project adept] [--profile NAME] [--FIELD VALUE
...]

Profile and fields as the sweep was started (with --track wandb). The same command again renews the report of that
title.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Collection
from pathlib import Path

from adept.tables.markdown import markdown
from adept.tables.report import View, build_view

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from adept.base.errors import UserError, first_line
from adept.commands.bench import parse
from adept.config import command_line
from adept.config.run import OPTIONS, task_of
from adept.methods import METHODS
from adept.runs.tracking.wandb_mirror import group_of
from adept.tables.table import QUANTITY, PlannedRun, Table
from adept.tables.table_file import load_table

MOST_LINES = 100
"""Runs or groups that a panel draws; the app's default of 10 would leave out rows of large tables."""


def reports_library():
    """The module wandb_workspaces.reports.v2 (wandb moved its reports there). Raises UserError where it is not
    installed.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
    except ImportError as error:
        raise UserError(
            "the report needs the package wandb-workspaces: pip install -r requirements-wandb.txt"
        ) from error
    return reports


def title(table: Table) -> str:
    return f"{'-'.join(filter(None, (table.name, table.profile)))}: {table.title}"[:128]  # what wandb takes


def make_report(view: View, entity: str, project: str, *, offline: bool = False):
    """The wandb Report of a table. offline: its run sets say "the report's own project", where wandb asks its server
    for an id.
    """
    wr = reports_library()
    place = {} if offline else {"entity": entity, "project": project}
    grouping = [f"config.{name}" for name in axes(view.table)]
    runs = view.table.runs()
    blocks = [wr.MarkdownBlock(markdown(view)), wr.TableOfContents()]
    for task in dict.fromkeys(run.config.task for run in runs if run.shown):
        members = [run for run in runs if run.config.task == task]
        chosen = wr.Runset(
            **place,
            name="chosen",
            filters=run_filter(task, members, without=not_chosen(view, members)),
            groupby=grouping,
        )
        everything = wr.Runset(**place, name="all runs", filters=run_filter(task, members))
        blocks += [
            wr.H2(task),
            wr.P("What validation chose: mean and standard deviation over the seeds."),
            wr.PanelGrid(runsets=[chosen], panels=comparison(members)),
            wr.P("Every run, also those of the search."),
            wr.PanelGrid(runsets=[everything], panels=search(view.table, members)),
        ]
    return wr.Report(
        entity=entity,
        project=project,
        title=title(view.table),
        description=view.table.note,
        blocks=blocks,
        width="fluid",
    )


def axes(table: Table) -> list[str]:
    """The fields that tell a table's runs of one task apart, the method first: rows and columns without the task."""
    return [name for name in dict.fromkeys(("method", *table.rows, *table.columns)) if name not in ("task", QUANTITY)]


def not_chosen(view: View, runs: list[PlannedRun]) -> set[str]:
    """The ids of runs that no cell prints: what validation decided against so far, and runs that are not shown."""
    printed = {record["run_id"] for cell in view.all_cells for record in cell.records}
    searched = {record["run_id"] for cell in view.all_cells for records in cell.configurations for record in records}
    return {run.id for run in runs if not run.shown or run.id in searched} - printed


def run_filter(task: str, runs: list[PlannedRun], without: Collection[str] = ()):
    """The table's group, and by their ids its runs that an earlier table made and that have that one's group."""
    from wandb_workspaces.expr import And, Config, Metric, Or

    groups = {group_of(run.config) for run in runs}
    elsewhere = {
        run.id for run in runs if (record := run.record()) and record["config"].get("wandb_group") not in groups
    }
    table = Metric("Group").isin(sorted(groups))
    if elsewhere:
        table = Or(table, Config("run_id").isin(sorted(elsewhere)))
    # A failed attempt has the id of the run that came after it.
    parts = [table, Config("task") == task, Metric("State").isin(["running", "finished"])]
    return And(*parts, *([Config("run_id").notin(sorted(without))] if without else []))


def comparison(runs: list[PlannedRun]) -> list:
    """Panels whose lines and bars are groups of runs: scores, training loss, rates. Metrics as adept/track.py names
    them.
    """
    wr = reports_library()
    config = runs[0].config
    reported = task_of(config).reported
    rates = dict.fromkeys(rate for run in runs for rate in METHODS[run.config.method].lrs.values())
    over_seeds = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev", "max_runs_to_show": MOST_LINES}
    scores = [f"validation/{metric}" for metric in dict.fromkeys((reported, config.select_on))]
    curves = [*scores, "train/loss", *(f"train/{rate}" for rate in rates)]
    bars = wr.BarPlot(title=f"test/{reported}", metrics=[f"test/{reported}"], max_bars_to_show=MOST_LINES, **over_seeds)
    return [bars, *(wr.LinePlot(title=key, x=wr.Metric("step"), y=[key], **over_seeds) for key in curves)]


def search(table: Table, runs: list[PlannedRun]) -> list:
    """Panels of single runs: score over trained parameters; the table's axes and every searched field beside the
    scores.
    """
    wr = reports_library()
    config = runs[0].config
    test = wr.SummaryMetric(f"test/{task_of(config).reported}")
    values: dict[tuple[str, str], set] = {}
    for run in runs:
        for name, value in dataclasses.asdict(run.config).items():
            values.setdefault((name, run.config.method), set()).add(value)
    searched = [name for (name, _), found in values.items() if len(found) > 1 and not OPTIONS[name].metadata["place"]]
    fields = [name for name in dict.fromkeys((*axes(table), *searched)) if name not in ("seed", "init_from")]
    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(wr.Config(name), log=name.endswith("lr") or None) for name in fields]
    columns += [column(wr.SummaryMetric(f"best/{config.select_on}")), column(test)]
    return [
        wr.ScatterPlot(
            title=f"{test.name} over trained parameters", x=wr.Config("trainable_params"), y=test, log_x=True
        ),
        wr.ParallelCoordinatesPlot(title="search", columns=columns),
    ]


def publish(view: View, entity: str | None, project: str) -> str:
    """Sends the report, in place of an earlier one of its title; returns its address. Raises UserError for what wandb
    refuses.
    """
    reports_library()
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        api = wandb.Api()
        entity = entity or api.default_entity
        earlier = {found.display_name: found.id for found in api.reports(f"{entity}/{project}")}
    except wandb.errors.Error as error:
        raise UserError(f"wandb: {first_line(error)} ('wandb login' or WANDB_API_KEY names your account)") from error
    except (WandbApiFailedError, ValueError) as error:
        raise UserError(
            f"wandb shows no project {entity}/{project}: {first_line(error)}; name it by --entity and --project"
        ) from error
    made = make_report(view, entity, project)
    made.id = earlier.get(made.title, "")
    try:
        return made.save().url
    except WandbApiFailedError as error:
        raise UserError(f"wandb did not take the report for {entity}/{project}: {first_line(error)}") from error


def main(arguments: list[str]) -> int:
    parser = command_line(__doc__, config_file=False)
    parser.add_argument("table", type=Path, help="configs/<table>.yaml")
    parser.add_argument("--profile", help="configs/profiles/NAME.yaml")
    parser.add_argument("--entity", help="wandb user or team [your default one]")
    parser.add_argument("--project", help="wandb project [the runs' --wandb_project]")
    parser.add_argument(
        "--dry_run", action="store_true", help="print the report's spec as JSON; needs no account and no network"
    )
    try:
        overrides, rest = parse(parser, arguments)
        view = build_view(load_table(rest.table, overrides, getattr(rest, "profile", None)))
        runs = view.table.runs()
        entity, project = getattr(rest, "entity", None), getattr(rest, "project", runs[0].config.wandb_project)
        if "dry_run" in rest:
            spec = make_report(view, entity or "", project, offline=True)._to_model()
            print(spec.model_dump_json(by_alias=True, exclude_none=True, indent=1))
            return 0
        print(publish(view, entity, project))
        done = [record for run in runs if (record := run.record())]
        tracked = sum(record["config"].get("track") == "wandb" for record in done)
        print(f"{tracked} of the table's {len(done)} finished runs were tracked (--track wandb)", file=sys.stderr)
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    os.environ.setdefault("WANDB_SILENT", "true")
    sys.exit(main(sys.argv[1:]))
