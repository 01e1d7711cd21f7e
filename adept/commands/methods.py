"""Prints every method: its reference, its options, and how many parameters it trains.

  python -m adept methods [--model t5-base] [--json]

The model is made without weights. Nothing is downloaded but the config of a model that has no alias.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from adept.base.console import print_result
from adept.base.errors import UserError
from adept.config.command_line import OneLineParser
from adept.config.layers import resolve
from adept.methods import METHODS
from adept.methods.method import Method


def main(arguments: list[str]) -> int:
    """Prints Markdown, or with --json a list of what describe() gives of each method."""
    parser = OneLineParser(
        prog="python -m adept methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="t5-base", help="alias, hub id or local folder [%(default)s]")
    parser.add_argument("--json", action="store_true", help="a JSON list in place of Markdown")
    chosen = parser.parse_args(arguments)
    described = [describe(method, chosen.model) for method in METHODS.values()]
    print_result(json.dumps(described, indent=1) if chosen.json else markdown(described, chosen.model))
    return 0


def describe(method: type[Method], model: str) -> dict[str, Any]:
    """{"method", "reference", "description", "trainable_params", "options"}.

    The options have the values of a run of RTE with this model. trainable_params is None where the method cannot be
    applied to this model with them.
    """
    options = resolve({"task": "rte", "method": method.name, "model": model}).method_options
    return {
        "method": method.name,
        "reference": method.reference,
        "description": " ".join(method.__doc__.split()),
        "trainable_params": count_trainable(options, model),
        "options": options.model_dump(),
    }


def count_trainable(method: Method, name: str) -> int | None:
    """Trained parameters of the method on the model's true shape, counted on the meta device.

    None where the method cannot be applied to the model. Raises UserError for an unknown model.
    """
    from adept.models.loading import shape_only_model

    model = shape_only_model(name)
    try:
        return method.count_trained(method.adapt(model, ShapeOnlyTokenizer()))
    except UserError:
        return None


class ShapeOnlyTokenizer:
    """A tokenizer where only shapes matter: it makes one token of every text."""

    def __call__(self, text: str) -> argparse.Namespace:
        return argparse.Namespace(input_ids=[0])


def shown_count(row: Mapping[str, Any]) -> str:
    """The number of trained parameters of one method, a dash where it cannot be applied to the model."""
    return "–" if row["trainable_params"] is None else f"{row['trainable_params']:,}"


def markdown(described: list[dict[str, Any]], model: str) -> str:
    """A table of the methods, and below it the options of each."""
    lines = [f"| method | reference | trained parameters on {model} |", "|---|---|---|"]
    lines += [f"| {row['method']} | {row['reference']} | {shown_count(row)} |" for row in described]
    for row in described:
        lines += ["", f"{row['method']}: {row['description']}"]
        fields = METHODS[row["method"]].own_options()
        lines += [f"  --{name} {value}: {fields[name].description}" for name, value in row["options"].items()]
    return "\n".join(lines)
