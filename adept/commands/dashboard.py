"""Sends a report of a table's tracked runs to wandb: our table, and for each task curves, bars and the search.

python -m adept dashboard configs/table12.yaml [--entity ME] [--project adept] [--profile NAME] [--OPTION VALUE ...]

Profile and options are those that the sweep was started with (--track wandb). The same command again renews the report.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

from adept.base.console import print_result, print_status
from adept.base.errors import UserError, first_line
from adept.base.options import is_place
from adept.commands.table_arguments import table_parser
from adept.config.command_line import OneLineParser, parse
from adept.config.run import OPTIONS, task_of
from adept.runs.tracking.wandb_mirror import group_of
from adept.tables.markdown import markdown
from adept.tables.report import View, build_view
from adept.tables.table import QUANTITY, PlannedRun, Table
from adept.tables.table_file import load_table

MAX_LINES = 100
"""The most runs or groups that a panel draws. The app's default of 10 leaves out rows of large tables."""

MAX_TITLE = 128
"""Characters; wandb refuses longer titles."""


def main(arguments: list[str]) -> int:
    """Sends the report of the table that the command line names and prints its address, or with --dry_run its spec."""
    os.environ.setdefault("WANDB_SILENT", "true")
    overrides, rest = parse(dashboard_parser(arguments), arguments)
    if getattr(rest, "table", None) is None:
        raise UserError("name a table, such as configs/table12.yaml")
    view = build_view(load_table(rest.table, overrides, getattr(rest, "profile", None), getattr(rest, "only", ())))
    runs = view.table.runs()
    entity, project = getattr(rest, "entity", None), getattr(rest, "project", runs[0].config.wandb_project)
    if "dry_run" in rest:
        spec = make_report(view, entity or "", project, offline=True)._to_model()
        print_result(spec.model_dump_json(by_alias=True, exclude_none=True, indent=1))
        return 0
    print_result(send_report(view, entity, project))
    finished = [run.record for run in runs if run.record is not None]
    tracked = sum(record["config"].get("track") == "wandb" for record in finished)
    print_status(f"{tracked} of the table's {len(finished)} finished runs were tracked (--track wandb)")
    return 0


def dashboard_parser(arguments: Sequence[str]) -> OneLineParser:
    parser = table_parser("dashboard", __doc__, arguments)
    parser.add_argument("--entity", help="wandb user or team [your default one]")
    parser.add_argument("--project", help="wandb project [the runs' --wandb_project]")
    parser.add_argument(
        "--dry_run", action="store_true", help="print the report's spec as JSON; needs no account and no network"
    )
    return parser


def reports_library() -> Any:
    """The module wandb_workspaces.reports.v2. Raises UserError where it is not installed."""
    try:
        import wandb_workspaces.reports.v2 as reports
    except ImportError as error:
        raise UserError(
            "the report needs the package wandb-workspaces: pip install -r requirements-wandb.txt"
        ) from error
    return reports


def send_report(view: View, entity: str | None, project: str) -> str:
    """Sends the report, in place of an earlier one of its title, and returns its address.

    entity: None for the account's default. Raises UserError for what wandb refuses.
    """
    reports_library()
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        api = wandb.Api()
        entity = entity or api.default_entity
        earlier = {report.display_name: report.id for report in api.reports(f"{entity}/{project}")}
    except wandb.errors.Error as error:
        raise UserError(f"wandb: {first_line(error)} ('wandb login' or WANDB_API_KEY names your account)") from error
    except (WandbApiFailedError, ValueError) as error:
        raise UserError(
            f"wandb shows no project {entity}/{project}: {first_line(error)}; name it by --entity and --project"
        ) from error
    report = make_report(view, entity, project)
    report.id = earlier.get(report.title, "")
    try:
        return report.save().url
    except WandbApiFailedError as error:
        raise UserError(f"wandb did not take the report for {entity}/{project}: {first_line(error)}") from error


# The report -----------------------------------------------------------------------------------------------------------


def make_report(view: View, entity: str, project: str, *, offline: bool = False) -> Any:
    """The wandb Report of a table.

    offline: the report does not name the project of its runs, since wandb asks its server for the project's id.
    """
    wr = reports_library()
    project_of_runs = {} if offline else {"entity": entity, "project": project}
    grouping = [f"config.{name}" for name in axes(view.table)]
    runs = view.table.runs()
    blocks = [wr.MarkdownBlock(markdown(view)), wr.TableOfContents()]
    for task in dict.fromkeys(run.config.task for run in runs if run.shown):
        members = [run for run in runs if run.config.task == task]
        chosen = run_filter(task, members, excluded=not_chosen(view, members))
        chosen_runs = wr.Runset(**project_of_runs, name="chosen", filters=chosen, groupby=grouping)
        all_runs = wr.Runset(**project_of_runs, name="all runs", filters=run_filter(task, members))
        blocks += [
            wr.H2(task),
            wr.P("What validation chose: mean and standard deviation over the seeds."),
            wr.PanelGrid(runsets=[chosen_runs], panels=comparison_panels(members)),
            wr.P("Every run, also those of the search."),
            wr.PanelGrid(runsets=[all_runs], panels=search_panels(view.table, members)),
        ]
    return wr.Report(
        entity=entity,
        project=project,
        title=report_title(view.table),
        description=view.table.note,
        blocks=blocks,
        width="fluid",
    )


def report_title(table: Table) -> str:
    return f"{'-'.join(filter(None, (table.name, table.profile)))}: {table.title}"[:MAX_TITLE]


def axes(table: Table) -> list[str]:
    """The options that tell a table's runs of one task apart: the method, then rows and columns without the task."""
    return [name for name in dict.fromkeys(("method", *table.rows, *table.columns)) if name not in ("task", QUANTITY)]


def not_chosen(view: View, runs: Sequence[PlannedRun]) -> set[str]:
    """The ids of runs that no cell prints: those that validation has not chosen, and those that are not shown."""
    printed = {record["run_id"] for cell in view.all_cells for record in cell.records}
    searched = {record["run_id"] for cell in view.all_cells for records in cell.configurations for record in records}
    return {run.id for run in runs if not run.shown or run.id in searched} - printed


def run_filter(task: str, runs: Sequence[PlannedRun], excluded: Collection[str] = ()) -> Any:
    """wandb's filter for the table's runs of a task, without those of the `excluded` ids.

    It asks for the table's group, and for the ids of those runs that another table made and that have its group.
    """
    from wandb_workspaces.expr import And, Config, Metric, Or

    groups = {group_of(run.config) for run in runs}
    of_other_groups = {
        run.id for run in runs if run.record is not None and run.record["config"].get("wandb_group") not in groups
    }
    of_table = Metric("Group").isin(sorted(groups))
    if of_other_groups:
        of_table = Or(of_table, Config("run_id").isin(sorted(of_other_groups)))
    # A failed attempt is left out by its state, because it has the id of the run that came after it.
    parts = [of_table, Config("task") == task, Metric("State").isin(["running", "finished"])]
    return And(*parts, *([Config("run_id").notin(sorted(excluded))] if excluded else []))


# Panels: their keys are those that adept/runs/tracking logs ----------------------------------------------------------


def comparison_panels(runs: Sequence[PlannedRun]) -> list:
    """Panels whose lines and bars are groups of runs: test and validation scores, training loss, learning rates."""
    wr = reports_library()
    config = runs[0].config
    reported = task_of(config).reported
    rates = dict.fromkeys(rate for run in runs for rate in run.config.method_options.rates.values())
    over_seeds = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev", "max_runs_to_show": MAX_LINES}
    scores = [f"validation/{metric}" for metric in dict.fromkeys((reported, config.select_on))]
    curves = [*scores, "train/loss", *(f"train/{rate}" for rate in rates)]
    bars = wr.BarPlot(title=f"test/{reported}", metrics=[f"test/{reported}"], max_bars_to_show=MAX_LINES, **over_seeds)
    return [bars, *(wr.LinePlot(title=key, x=wr.Metric("step"), y=[key], **over_seeds) for key in curves)]


def search_panels(table: Table, runs: Sequence[PlannedRun]) -> list:
    """Panels of single runs: score over trained parameters, and the scores beside the options that were searched."""
    wr = reports_library()
    config = runs[0].config
    test_score = wr.SummaryMetric(f"test/{task_of(config).reported}")
    values: dict[tuple[str, str], set] = {}
    for run in runs:
        for name, value in run.config.flat().items():
            values.setdefault((name, run.config.method), set()).add(value)
    searched = [name for (name, _), found in values.items() if len(found) > 1 and not is_place(OPTIONS[name])]
    options = [name for name in dict.fromkeys((*axes(table), *searched)) if name not in ("seed", "init_from")]
    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(wr.Config(name), log=name.endswith("lr") or None) for name in options]
    columns += [column(wr.SummaryMetric(f"best/{config.select_on}")), column(test_score)]
    return [
        wr.ScatterPlot(
            title=f"{test_score.name} over trained parameters",
            x=wr.Config("trainable_params"),
            y=test_score,
            log_x=True,
        ),
        wr.ParallelCoordinatesPlot(title="search", columns=columns),
    ]
