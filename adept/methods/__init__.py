"""Every method of fine-tuning that --method can name. To add one: a class in a file here, and a line in METHODS."""

from __future__ import annotations

from adept.base.errors import UserError, nearest
from adept.methods.diff_pruning import DiffPruning
from adept.methods.in_model import Full, LoRA, ZeroShot
from adept.methods.ladder import LadderSideTuning
from adept.methods.method import Method
from adept.methods.prefix import Prefix
from adept.methods.prompts import PT, ADePT, DePT
from adept.methods.released import DePTReLU, PTWithTable

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        ZeroShot,
        Full,
        LoRA,
        PT,
        DePT,
        ADePT,
        PTWithTable,
        DePTReLU,
        Prefix,
        LadderSideTuning,
        DiffPruning,
    )
}


def find_method(name: str) -> type[Method]:
    """The method of that name. Raises UserError that names the nearest."""
    if name not in METHODS:
        raise UserError(f"unknown method '{name}'; {nearest(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Method", "find_method"]
