"""What judge, candidate and caller send each other: a line of JSON per message, in which data keeps its Python type."""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False  # importing typing would take a tenth of a child's start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

EXITED = "exited early"
"""The verdict's reason if the candidate's process has ended; the caller replaces it by how it ended."""

CLASSES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)}
"""Classes that may be arguments themselves (MBPP/533)."""


def encode(value: Any, encode_other: Callable[[Any], dict]) -> Any:
    """Returns the JSON form of plain data; an object of a subclass is encoded as the value of its base class.

    JSON's null, booleans, strings, floats, arrays and small integers stand for themselves, and {tag: content} for the
    rest (see DECODERS).

    Args:
        encode_other: returns the JSON form, {tag: content}, of a value that is no plain data, or raises TypeError.
    """
    if value is None or isinstance(value, bool):
        return value
    match value:
        case str():
            return str.__str__(value)
        case int():
            # hexadecimal, because converting long decimals takes quadratic time
            return int(value) if -(2**53) < value < 2**53 else {"int": hex(value)}
        case float():
            return float.__float__(value)
        case list():
            return [encode(item, encode_other) for item in value]
        case dict():
            return {"dict": [[encode(key, encode_other), encode(item, encode_other)] for key, item in value.items()]}
        case complex():
            return {"complex": [value.real, value.imag]}
        case range():
            return {"range": [encode(end, encode_other) for end in (value.start, value.stop, value.step)]}
        case type() if value in CLASSES.values():
            return {"class": value.__name__}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item, encode_other) for item in value]}
    for kind in (bytes, bytearray):
        if isinstance(value, kind):
            return {kind.__name__: value.hex()}
    for module, name in (("fractions", "Fraction"), ("decimal", "Decimal")):
        if isinstance(value, getattr(sys.modules.get(module), name, ())):
            return {name: str(value)}
    return encode_other(value)


def exact_number(module: str, class_name: str, text: str) -> Any:
    """Returns a Fraction or Decimal. Imports its module here, because most programs need neither."""
    return getattr(__import__(module), class_name)(str(text))


DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda digits: int(digits, 16),
    "complex": lambda parts: complex(*parts),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "range": lambda ends: range(*ends),
    "class": CLASSES.__getitem__,
    "Fraction": lambda text: exact_number("fractions", "Fraction", text),
    "Decimal": lambda text: exact_number("decimal", "Decimal", text),
}
"""{tag: what rebuilds the value from the tag's content}."""


def decode(line: bytes, more_decoders: dict[str, Callable[[Any], Any]]) -> Any:
    """Returns the value that `encode` and `send` have written as `line`.

    Args:
        more_decoders: for the tags that only the receiving side knows; they come before DECODERS.

    Raises whatever json and the decoders raise on a line that `encode` has not written.
    """

    def build(tagged: dict) -> Any:
        ((tag, content),) = tagged.items()
        return (more_decoders.get(tag) or DECODERS[tag])(content)

    return json.loads(line, object_hook=build)


def send(pipe: BinaryIO, message: Any) -> None:
    """Writes what json can write, as one line."""
    line = json.dumps(message).encode() + b"\n"
    pipe.write(line)
    pipe.flush()


def move_standard_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Moves the process's stdin and stdout to other file descriptors and returns them.

    /dev/null takes the place of stdin, stdout and stderr, so that what a program prints neither disturbs the messages
    nor fills a pipe.
    """
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    return pipes
