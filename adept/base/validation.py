"""Files that a user or another program wrote, read by pydantic.

A mistake in one of them is one line that names the file and the key.
"""

from __future__ import annotations

import types
import typing
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from adept.base.errors import UserError, nearest

NOUNS = {
    str: "text",
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}

UNKNOWN_KEY = ("extra_forbidden", "invalid_key")
"""Pydantic's types of errors for a key that the model does not have, and for one that is no text."""


class FileContent(BaseModel):
    """What a file holds. Keys that it does not know, values of another type and empty values are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    may_be_empty: ClassVar[frozenset[str]] = frozenset()
    """Keys whose value may be an empty text, list or mapping."""

    @field_validator("*", mode="before")
    @classmethod
    def _neither_none_nor_empty(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            expected = describe_type(cls.model_fields[info.field_name])
            raise line_error(f"'{info.field_name}' must be {expected}, not None")
        if value in ("", [], {}) and info.field_name not in cls.may_be_empty:
            raise line_error(f"'{info.field_name}' is empty")
        return value


def line_error(line: str) -> PydanticCustomError:
    """For validators: an error whose line follows the name of the file."""
    # A file's text may hold half of a surrogate pair, which pydantic cannot render.
    return PydanticCustomError("line", "{line}", {"line": line.encode(errors="backslashreplace").decode()})


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], content: Any, where: str) -> Model:
    """The content as `model`. Raises UserError "<where>: <what is wrong>" for the first mistake."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {error_line(model, error)}") from error


def error_line(model: type[BaseModel], error: ValidationError) -> str:
    """The first of pydantic's errors in one line: what is wrong, and what would be right."""
    errors = error.errors(include_url=False)
    # A misspelt key is unknown, and often another one is missing for it: the unknown one says more.
    first = next((entry for entry in errors if entry["type"] in UNKNOWN_KEY), errors[0])
    prefix, field = "", None
    for depth, part in enumerate(first["loc"]):  # down to the innermost model that the error lies in
        if depth and isinstance(part, int):  # an entry of a list of models; a key that is a number comes first
            prefix = f"{prefix}entry {part + 1}: "
            continue
        known = fields_by_key(model)
        field = known.get(part)
        inner = nested_model(field) if field else None
        below = [key for key in first["loc"][depth + 1 :] if not isinstance(key, int)]
        if inner is None or not below:
            break
        model, prefix = inner, f"{prefix}{part}: "
    match first["type"]:
        case "line":
            return prefix + first["ctx"]["line"]
        case "missing":
            return f"{prefix}'{part}' is missing"
        case kind if kind in UNKNOWN_KEY:
            return f"{prefix}unknown key {str(part)!r}; {nearest(str(part), known)}"
    if first["type"].startswith("greater_than"):
        return f"{prefix}'{part}' must be at least {first['ctx']['ge']}, not {first['input']!r:.40}"
    return f"{prefix}'{part}' must be {describe_type(field)}, not {first['input']!r:.80}"


def fields_by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the keys that a file has for them: a field's alias, where it has one."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def nested_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model that the field holds, or that it holds a list of."""
    kinds = [*plain_types(field), *(typing.get_args(field.annotation) if list in plain_types(field) else ())]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def plain_types(field: FieldInfo) -> list[Any]:
    """The types of a field's annotation without None, without what they hold."""
    union = typing.get_origin(field.annotation) in (typing.Union, types.UnionType)
    arguments = typing.get_args(field.annotation) if union else (field.annotation,)
    return [typing.get_origin(argument) or argument for argument in arguments if argument is not type(None)]


def describe_type(field: FieldInfo) -> str:
    """A field's type in words: "a list or a mapping"."""
    if typing.get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(field.annotation)))
    kinds = [
        "a mapping" if isinstance(kind, type) and issubclass(kind, BaseModel) else NOUNS[kind]
        for kind in plain_types(field)
    ]
    return " or ".join(dict.fromkeys(kinds))
