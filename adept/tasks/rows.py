"""Rows of a data set, and how their columns are read as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

Answer = tuple[str, tuple[str, ...]]
"""(training target, references that a prediction is compared with)"""


class CsvText(str):
    """A cell of a .csv file, where the number 1 and the text "1" look the same."""


def text_value(row: Row, column: str) -> str:
    """A column's value as text.

    Raises KeyError for a missing column, ValueError for one that holds neither text nor a number.
    """
    value = row[column]
    is_nan = value != value  # how tables write a missing text
    if value is None or isinstance(value, list | dict | bytes) or is_nan:
        raise ValueError(f"column '{column}' holds {value!r:.40} where text is needed")
    return str(value)


def list_value(row: Row, column: str) -> list[str]:
    """A column that holds one or more texts. Raises ValueError where it does not."""
    value = row[column]
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError(f"column '{column}' holds {value!r:.40} where a list of texts is needed")
    return value
