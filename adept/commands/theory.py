"""Measures the first layer's attention of frozen models, of trained adapters and of a random T5 (Section 3.4, Eq. 5-8).

python -m adept theory [--model NAME] [--adapters RUN_ID ...] [--results_dir DIR]

Writes RESULTS_DIR/tables/theory.json, .md and .png. The adapters are those of configs/quickstart.yaml, unless
--adapters names others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from adept.analysis.theory import draw_theory, measure_theory, quickstart_configs, theory_markdown
from adept.base.atomic_files import write_atomically
from adept.base.console import print_result
from adept.base.errors import UserError
from adept.config.command_line import OneLineParser
from adept.config.run import OPTIONS
from adept.models.families import BUNDLED


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m adept theory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model", default=BUNDLED, help="model of the quickstart's adapters [%(default)s]; not read with --adapters"
    )
    parser.add_argument(
        "--adapters", nargs="+", metavar="RUN_ID", help="trained adapters, run ids or folders [the quickstart's]"
    )
    parser.add_argument("--rows", type=int, default=48, help="number of test rows [%(default)s]")
    parser.add_argument("--results_dir", default="results", help="folder of the runs and the tables [%(default)s]")
    for name in ("data_dir", "device"):
        parser.add_argument(f"--{name}", help=f"as in train.py: {OPTIONS[name].description}")
    return parser


def run(options: argparse.Namespace) -> str:
    """Measures, writes table and figure, and returns the text to print. Raises UserError for unusable options."""
    if options.rows < 1:
        raise UserError(f"--rows must be a whole number >= 1, not {options.rows}")
    places = {name: getattr(options, name) for name in ("results_dir", "data_dir", "device")}
    places = {name: value for name, value in places.items() if value is not None}
    adapters = options.adapters or [config.run_id for config in quickstart_configs(model=options.model)]
    theory = measure_theory(adapters, options.rows, places)
    folder = Path(options.results_dir) / "tables"
    write_atomically(folder / "theory.json", json.dumps(theory, indent=1) + "\n")
    write_atomically(folder / "theory.md", theory_markdown(theory))
    draw_theory(theory, folder / "theory.png")
    return f"{theory_markdown(theory)}\ntable:  {folder / 'theory.md'}\nfigure: {folder / 'theory.png'}"


def main(arguments: list[str]) -> int:
    """Measures and prints what the command line asks for."""
    print_result(run(make_parser().parse_args(arguments)))
    return 0
