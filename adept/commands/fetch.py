"""Fetches the bundled model and data set ahead of time.

python -m adept fetch
"""

from __future__ import annotations

import argparse

from adept.base.console import print_result
from adept.base.paths import ROOT
from adept.config.command_line import OneLineParser
from adept.models.bundled import movie_reviews, smollm2_folder


def main(arguments: list[str]) -> int:
    """Fetches what is not there yet, and prints the two folders."""
    parser = OneLineParser(
        prog="python -m adept fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    print_result(f"{smollm2_folder().relative_to(ROOT)} {movie_reviews().relative_to(ROOT)}")
    return 0
