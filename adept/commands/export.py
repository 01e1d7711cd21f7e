"""Writes a trained run as a folder that transformers or PEFT reads without this project.

python -m adept export RUN_ID FOLDER
python -m adept export RUN_ID FOLDER --as peft

The folder is read by transformers or PEFT alone and compared with the run before it gets its name.
"""

from __future__ import annotations

import argparse

from adept.base.console import print_result
from adept.base.errors import UserError
from adept.commands.push import add_terms
from adept.config.command_line import OneLineParser
from adept.config.run import OPTIONS


def make_parser() -> OneLineParser:
    """The command line of `export`."""
    from adept.serving.export import FORMS, PRECISIONS

    parser = OneLineParser(
        prog="python -m adept export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN_ID", help="a run id or an adapter folder")
    parser.add_argument("folder", metavar="FOLDER", help="what is written; it must not be there, or be empty")
    forms = "; ".join(f"{form}: {text}" for form, text in FORMS.items())
    parser.add_argument("--as", dest="form", choices=[*FORMS], default="plain", help=f"{forms} [%(default)s]")
    parser.add_argument(
        "--compact", action="store_true", help="an encoder-decoder with two tables, for transformers 5 alone"
    )
    parser.add_argument(
        "--no_cue", action="store_true", help="the tokenizer does not write the cue: what follows is scored, not asked"
    )
    parser.add_argument("--dtype", choices=[*PRECISIONS], help="of the weights [the run's --precision]")
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="put the folder on the hub, with a card (`push` does, too)"
    )
    add_terms(parser)
    parser.add_argument("--results_dir", default="results", help="folder of the runs [%(default)s]")
    for name in ("model", "device"):
        parser.add_argument(f"--{name}", help=f"as in train.py: {OPTIONS[name].description}")
    return parser


def main(arguments: list[str]) -> int:
    """Exports the run, and prints the folder, or the address on the hub."""
    from adept.serving.export import export
    from adept.serving.hub import push, require_pushable, trained_run

    chosen = make_parser().parse_args(arguments)
    if chosen.push is not None:
        require_pushable(chosen.push, chosen.license, holds_base=chosen.form == "plain")
    elif chosen.public or chosen.license:
        raise UserError("--public and --license have no effect without --push OWNER/NAME")
    overrides = {name: getattr(chosen, name) for name in ("model", "device") if getattr(chosen, name) is not None}
    folder = export(
        chosen.run,
        chosen.folder,
        form=chosen.form,
        results_dir=chosen.results_dir,
        compact=chosen.compact,
        cue=not chosen.no_cue,
        dtype=chosen.dtype,
        **overrides,
    )
    if chosen.push is None:
        print_result(str(folder))
        return 0
    _, config, record = trained_run(chosen.run, chosen.results_dir)
    print_result(push(folder, chosen.push, config, record, public=chosen.public, license=chosen.license))
    return 0
