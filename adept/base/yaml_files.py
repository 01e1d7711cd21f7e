"""YAML files of the user's and of the project's own, read strictly."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import yaml

from adept.base.errors import UserError

LONGEST_YAML = 200_000
"""Bytes of a YAML file: some hundred times the longest of configs/, and read within seconds."""


class StrictLoader(yaml.SafeLoader):
    """YAML without its traps.

    A key that is written twice is an error, where YAML would silently keep the last value. An alias is an error too,
    because a few lines of aliases of aliases stand for billions of values.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"write the value again in place of the alias *{event.anchor}{event.start_mark}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            [(key, _)] = Counter(self.construct_object(key, deep=deep) for key, _ in node.value).most_common(1)
            raise yaml.YAMLError(f"key '{key}' is written twice{node.start_mark}")
        return mapping

    def construct_yaml_int(self, node):
        number = super().construct_yaml_int(node)
        if number.bit_length() > 64:  # Python prints no number of some thousand digits, so no error line could name it
            raise yaml.YAMLError(f"a whole number of {number.bit_length():,} bits{node.start_mark}")
        return number


StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.construct_yaml_int)


def read_yaml(path: Path) -> dict:
    """The mapping that a YAML file holds. Raises UserError in one line."""
    try:
        with path.open("rb") as file:  # no read_text(): the file may be a device that never ends
            text = file.read(LONGEST_YAML + 1).decode("utf-8")
        if len(text) > LONGEST_YAML:
            raise UserError(f"{path} has more than {LONGEST_YAML:,} bytes; that is no file of fields")
        content = yaml.load(text, Loader=StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # PyYAML's own errors, and Python's for a date that is none, for "!!bool maybe", for a thousand brackets.
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path} must hold 'field: value' lines, not a {type(content).__name__}")
    return content or {}


@functools.cache
def read_own_yaml(path: Path) -> dict:
    """A file of the project's own, read once: a table resolves hundreds of runs."""
    return read_yaml(path)
