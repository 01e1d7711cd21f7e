"""Prints a table from the records that are there. No number is printed that no record holds.

python -m adept report configs/table12.yaml [--profile NAME] [--OPTION VALUE ...]     as the sweep was started
python -m adept report --all [--profile NAME]      all tables, results/README.md and the page results/index.html

Writes RESULTS_DIR/tables/<table>.md and .csv, and .png where runs were evaluated more than once.
"""

from __future__ import annotations

from adept.base.console import print_result
from adept.commands.table_arguments import named_tables, table_parser
from adept.config.command_line import parse
from adept.tables.publish import publish_all, publish_table


def main(arguments: list[str]) -> int:
    """Writes and prints the tables that the command line names."""
    overrides, rest = parse(table_parser("report", __doc__, arguments), arguments)
    tables = named_tables(rest, overrides)
    print_result(publish_all(tables) if "all" in rest else publish_table(tables[0]))
    return 0
