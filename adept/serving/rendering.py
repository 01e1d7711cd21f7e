"""Texts of what a trained run is asked: rows of the task's columns, or sources that are ready."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adept.base.errors import UserError
from adept.tasks.rows import Row
from adept.tasks.task import Task

Source = str | Row
"""What is answered: a row of the task's columns, or a text rendered as the task renders its rows ("review: ...")."""

READY = "source"
"""The column of a row that is no row of the task's but a ready source."""


class MissingColumn(UserError):
    """A row lacks a column of the task's."""


def source_text(task: Task, source: Source) -> str:
    """The text of a source. Raises UserError where it has none, MissingColumn where it lacks a column."""
    return source if isinstance(source, str) else task_text(task, source)


def source_texts(task: Task, row: Row) -> list[str]:
    """The texts of the questions that a row asks: one, or several where the task makes several of a row.

    Pieces of a row that differ in their target alone ask one question, and a row without targets is itself the piece.
    Raises UserError as source_text() does.
    """
    try:
        pieces = [*task.expand(row)] if task.expand and isinstance(row, Mapping) else [row]
    except (LookupError, TypeError, ValueError):
        pieces = [row]
    return [*dict.fromkeys(task_text(task, piece) for piece in pieces)]


def ready_text(row: Row) -> str:
    """The text of a row that is a ready source, {"source": text, ...}. Raises UserError where it is none."""
    if not isinstance(text := row.get(READY) if isinstance(row, Mapping) else None, str):
        raise UserError(f"{row!r:.80} is no ready source as the rows before it, which have a text '{READY}'")
    return checked_text(text)


def task_text(task: Task, row: Any) -> str:
    """The text of a row of the task's columns."""
    if not isinstance(row, Mapping):
        raise UserError(f"{row!r:.40} is no row; it must be {{column: value}}")
    try:
        return checked_text(task.source(row))
    except KeyError as error:
        raise MissingColumn(f"task '{task.name}' needs the column {error}; found {', '.join(map(str, row))}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def checked_text(text: str) -> str:
    """The text. Raises UserError for half a character, which JSON can hold and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(str(error)) from error
    return text
