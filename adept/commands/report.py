"""Prints a table from the records that are there. No number is printed that no record holds.

python -m adept report configs/table12.yaml [--page]      with its sweep's flags, which are noted beside the results
python -m adept report configs/table12.yaml --profile NAME --only task=rte --OPTION VALUE ...      with these flags
python -m adept report --all [--profile NAME]      all tables, results/README.md and the page results/index.html
python -m adept report --all --profile study,laptop      of each table, the first profile whose runs are all there

Writes RESULTS_DIR/tables/<table>.md and .csv, .search.csv where validation had a choice, .png where runs were evaluated
more than once, and with --page .html. Flags become a part of the files' names.
"""

from __future__ import annotations

from collections.abc import Sequence

from adept.base.console import print_result
from adept.base.errors import UserError
from adept.commands.table_arguments import add_all, named_tables, table_parser
from adept.config.command_line import OneLineParser, parse
from adept.tables.manifest import as_swept
from adept.tables.publish import publish_all, publish_table


def main(arguments: list[str]) -> int:
    """Writes and prints the tables that the command line names."""
    overrides, rest = parse(report_parser(arguments), arguments)
    tables = named_tables(rest, overrides)
    if "all" in rest:
        if "page" in rest:
            raise UserError("--page is for one table; --all writes the page of all tables by itself")
        print_result(publish_all(tables))
    else:
        print_result(publish_table(as_swept(tables[0]), page="page" in rest))
    return 0


def report_parser(arguments: Sequence[str]) -> OneLineParser:
    """The parser of `report`. arguments: the command line, which chooses what --help lists."""
    parser = table_parser("report", __doc__, arguments)
    add_all(parser)
    parser.add_argument("--page", action="store_true", help="also write the page of this table")
    return parser
