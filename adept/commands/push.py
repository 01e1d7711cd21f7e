"""Puts a trained run on the Hugging Face hub, with a card made of its record.

python -m adept push RUN_ID OWNER/NAME
python -m adept push FOLDER OWNER/NAME --run RUN_ID --license apache-2.0

The first form uploads the run's adapter (some KB, and no data or predictions), the second a folder that `export` wrote
of it. The repository is private unless --public is given. --card prints the card and uploads nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adept.base.console import print_result
from adept.base.errors import UserError
from adept.config.command_line import OneLineParser


def make_parser() -> OneLineParser:
    """The command line of `push`."""
    parser = OneLineParser(
        prog="python -m adept push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("source", metavar="RUN_ID or FOLDER", help="a run id, an adapter folder or an exported folder")
    parser.add_argument("repository", metavar="OWNER/NAME", nargs="?", help="the repository on the hub")
    parser.add_argument("--run", metavar="RUN_ID", help="the run that the folder was exported from")
    add_terms(parser)
    parser.add_argument("--card", action="store_true", help="print the card and upload nothing")
    parser.add_argument("--results_dir", default="results", help="folder of the runs [%(default)s]")
    return parser


def add_terms(parser: OneLineParser) -> None:
    """Adds --public and --license, for commands that push."""
    parser.add_argument("--public", action="store_true", help="everyone may see the repository [only its owner]")
    parser.add_argument("--license", metavar="ID", help="of what is uploaded, such as apache-2.0, for the card")


def main(arguments: list[str]) -> int:
    """Uploads what the command line names, and prints its address; or prints the card."""
    options = make_parser().parse_args(arguments)
    from adept.serving.card import folder_form, model_card
    from adept.serving.hub import push, trained_run

    exported = Path(options.source).is_dir() and folder_form(Path(options.source)) != "adept"
    if exported and options.run is None:
        raise UserError(f"{options.source} does not say which run it was exported from: --run RUN_ID names it")
    adapter, config, record = trained_run(options.run or options.source, options.results_dir)
    folder = Path(options.source) if exported else adapter
    if options.card:
        print_result(model_card(folder, config, record, license=options.license, repository=options.repository))
        return 0
    if options.repository is None:
        raise UserError("name the repository, OWNER/NAME; --card prints the card and needs none")
    print_result(push(folder, options.repository, config, record, public=options.public, license=options.license))
    return 0
