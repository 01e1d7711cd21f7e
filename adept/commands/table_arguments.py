"""The command line that sweep, report and dashboard share: a table, its profile, and options of its runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adept.base.errors import UserError
from adept.base.paths import ROOT
from adept.config.command_line import OneLineParser, command_line
from adept.tables.table import Table
from adept.tables.table_file import check_overrides, load_table


def table_parser(command: str, description: str, arguments: Iterable[str]) -> OneLineParser:
    """A parser for a table file, its profile, and the options that override those of its runs.

    command: its name. arguments: the command line, which chooses what --help lists.
    """
    prog = f"python -m adept {command}"
    parser = command_line(description, prog=prog, config_file=False, arguments=arguments)
    parser.add_argument("table", type=Path, nargs="?", default=None, help="configs/<table>.yaml")
    parser.add_argument(
        "--profile",
        help="configs/profiles/NAME.yaml: 'smoke' (tiny random models), 'laptop' (a real small one), 'study' (longer), "
        "'fast' (bf16)",
    )
    parser.add_argument(
        "--only",
        metavar="OPTION=VALUE",
        action="append",
        help="only the runs with this value (several of one option: any of them), such as --only task=rte",
    )
    return parser


def add_all(parser: OneLineParser) -> None:
    """Adds --all, for commands that can take the paper's tables together."""
    parser.add_argument("--all", action="store_true", help="the paper's 15 tables in place of one")


def named_tables(rest: argparse.Namespace, overrides: Mapping[str, Any]) -> list[Table]:
    """The tables that the command line names.

    Raises UserError where it names none, and for an option that no run of the tables has.
    """
    if ("table" in rest and rest.table is not None) == ("all" in rest):
        raise UserError("name a table, such as configs/table12.yaml, or give --all")
    files = [ROOT / "configs" / f"table{number}.yaml" for number in range(1, 16)] if "all" in rest else [rest.table]
    profile = getattr(rest, "profile", None)
    profiles = profile.split(",") if profile and "all" in rest else [profile]
    only = getattr(rest, "only", ())
    tables = [load_table(path, overrides, name, only) for path in files for name in profiles]
    check_overrides(tables)
    return tables
