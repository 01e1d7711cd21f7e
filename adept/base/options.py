"""Options: pydantic models whose fields become flags, YAML keys and entries of a record.

An option is declared once, in the class that reads it, with its default, range and help text:

    class ADePT(PromptMethod):
        bottleneck: int = option(19, "r of the network d -> r -> d (Eq. 3)", ge=1)

Values arrive from command lines and YAML files, so a number may come as a string. A wrong value raises UserError in one
line.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from adept.base.errors import SECRET, UserError
from adept.base.validation import NOUNS, line_error

LARGEST = 2**31 - 1
"""The largest whole number of any option.

torch's generators, which are seeded with 100,003 times the seed, and tokenizers can count so far.
"""

MOST_TOKENS = 1_000_000
"""The largest number of tokens of any option: beyond every model's context, and few enough for the memory."""

WIDEST = 16_384
"""The largest prompt, rank or bottleneck: beyond every model's width, and small enough to be made on any machine."""


def option(
    default: Any = ...,
    description: str = "",
    *,
    place: bool = False,
    path: Literal["always", "where it exists"] | None = None,
    names: tuple[str, ...] = (),
    **constraints: Any,
) -> Any:
    """A field of an Options class.

    place: a folder, a device or the like, which is no part of a run's id. path: whether the value is a file or folder,
    which a YAML file names relative to itself; "where it exists": it may be a name as well. names: values that are no
    paths.
    """
    extra = {"place": place, "path": path, "names": names}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def path_beside(field: FieldInfo, value: Any, folder: Path) -> Any:
    """The value of an option as a file in `folder` means it: a relative path begins there. Other values stay."""
    extra = field.json_schema_extra or {}
    if not extra.get("path") or not isinstance(value, str) or not value or value in extra["names"]:
        return value
    path = os.path.normpath(folder / value)
    if extra["path"] == "where it exists" and not (value.startswith(".") or os.path.exists(path)):
        return value
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


@dataclass(frozen=True)
class OptionType:
    """What an option's annotation says: the type of its values, whether one of them is None, and its choices."""

    kind: type
    optional: bool
    choices: tuple[Any, ...] = ()


def option_type(annotation: Any) -> OptionType:
    """`int | None` -> (int, True), `Literal["a", "b"]` -> (str, False, ("a", "b"))."""
    optional = False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        arguments = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
        optional, annotation = len(arguments) < len(typing.get_args(annotation)), arguments[0]
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        return OptionType(type(choices[0]), optional, choices)
    return OptionType(annotation, optional)


def limits(field: FieldInfo) -> tuple[float | None, float | None]:
    """(lowest, highest) value of a field, None where it has no such limit. Whole numbers end at LARGEST."""
    low = next((entry.ge for entry in field.metadata if hasattr(entry, "ge")), None)
    high = next((entry.le for entry in field.metadata if hasattr(entry, "le")), None)
    return low, LARGEST if high is None and option_type(field.annotation).kind is int else high


def describe_values(field: FieldInfo) -> str:
    """The values that a field may have, in words: "a whole number >= 1 and <= 16384", "one of a, b"."""
    value_type = option_type(field.annotation)
    if value_type.choices:
        return "one of " + ", ".join(map(str, value_type.choices))
    low, high = limits(field)
    bounds = [f">= {value_type.kind(low)}"] if low is not None else []
    bounds += [f"<= {high}"] if high is not None else []
    return " ".join([NOUNS[value_type.kind], " and ".join(bounds)]).strip()


def from_text(kind: type, value: Any) -> Any:
    """The value as `kind`, where it is a text or another kind of number that says the same; else the value unchanged.

    YAML 1.1 reads 1e-3 as a string, and a command line reads everything as one.
    """
    if kind is bool and isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return value
        if kind is int and isinstance(value, str) and value.lstrip("+-").isdigit():
            return int(value)
        if kind is float or number.is_integer():
            return kind(number)
    return value


class Options(BaseModel):
    """A group of options, checked and frozen. Raises UserError for a value of the wrong type or out of range."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(error_line(type(self), error)) from error

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name]
        value_type = option_type(field.annotation)
        value = from_text(value_type.kind, value)
        if value_type.kind is int and type(value) is int and abs(value) > LARGEST:
            raise ValueError(f"beyond {LARGEST}")  # error_line() says so for every field
        if value_type.kind is str and isinstance(value, str):
            check_text(info.field_name, value)
        return value

    def replace(self, **changes: Any) -> Self:
        """The options with some values changed, checked again."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | changes)

    @classmethod
    def own_options(cls) -> dict[str, FieldInfo]:
        """{name: field} of the options, those of base classes first."""
        return {name: field for name, field in cls.model_fields.items() if name not in cls.parts}

    parts: ClassVar[tuple[str, ...]] = ()
    """Fields that are no options but hold options of their own."""


def is_place(field: FieldInfo) -> bool:
    """Whether the option only says where or how a run is computed, and is no part of its id."""
    return bool((field.json_schema_extra or {}).get("place"))


def default_of(field: FieldInfo) -> Any:
    """The field's default, None where it has none."""
    return None if field.default is PydanticUndefined else field.default


def check_text(name: str, value: str) -> None:
    """Refuses an empty text, control characters (they would reach terminals) and secrets (they would be recorded).

    Raises ValueError for the first, line_error() with the whole line for the others.
    """
    if value == "":
        raise ValueError("empty")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", value):
        raise line_error(f"--{name} holds a control character: {value!r:.200}")
    if SECRET.search(value):
        raise line_error(
            f"--{name} holds a password or token, which would be recorded; give it by the environment, as HF_TOKEN is"
        )


def error_line(options: type[Options], error: ValidationError) -> str:
    """The first of pydantic's errors as our line: "--steps must be a whole number >= 0, not 'many'"."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "line":
        return first["ctx"]["line"]
    if not first["loc"]:  # a check of several options together
        return str(first["ctx"]["error"])
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"--{name} is missing"
    if name not in options.model_fields:
        return f"{options.__name__} has no option '{name}'"
    value, expected = first["input"], describe_values(options.model_fields[name])
    return f"--{name} must be {expected}, not {'empty' if value is None else f'{value!r:.200}'}"


def check_option(owner: type[Options], name: str, value: Any) -> Any:
    """One value as the class would take it. Raises UserError in one line."""
    try:
        return getattr(owner.__pydantic_validator__.validate_assignment(owner.model_construct(), name, value), name)
    except ValidationError as error:
        if error.errors()[0]["type"] == "frozen_instance":
            raise
        raise UserError(error_line(owner, error)) from error


def flat(*groups: Options) -> dict[str, Any]:
    """{name: value} of all options of the groups, in their order."""
    return {name: getattr(group, name) for group in groups for name in group.own_options()}


def read_options(owner: type[Options], values: Mapping[str, Any]) -> Options:
    """An Options object of the values whose names it has."""
    return owner(**{name: value for name, value in values.items() if name in owner.own_options()})
