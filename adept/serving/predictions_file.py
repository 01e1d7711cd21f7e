"""A file of predictions: written a chunk at a time, and gone on with where a killed prediction stopped."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError, first_line
from adept.serving.questions import PREDICTION, PROBABILITIES

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SETTINGS = ".settings.json"
"""The end of the name of the file beside the predictions that says what made them."""


class PredictionsFile:
    """JSON lines, one a row, and beside them the settings that made them."""

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        """settings: the runs and the options that decide about predictions.

        Raises UserError where the file holds something else than predictions with these settings.
        """
        self.path, self.settings_path = path, path.with_name(path.name + SETTINGS)
        self.settings = json.loads(json.dumps(settings))
        self.size = 0  # bytes of complete lines
        if path.is_dir():
            raise UserError(f"--output {path} is a folder; name a file")
        if path.exists() and path.stat().st_size:
            self.require_same_settings()
            with path.open("rb") as file:
                self.size = sum(len(line) for line in file if line.endswith(b"\n"))

    def require_same_settings(self) -> None:
        """Raises UserError where the settings beside the file are others, or none."""
        try:
            found = json.loads(self.settings_path.read_text(encoding="utf-8"))
            differing = sorted(key for key in self.settings | found if self.settings.get(key) != found.get(key))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"--output {self.path} is there, and {self.settings_path.name} does not say that this command wrote "
                "it: name another file, or remove it"
            ) from error
        if differing:
            values = "; ".join(f"{key} {found.get(key)!r:.80}, now {self.settings.get(key)!r:.80}" for key in differing)
            raise UserError(
                f"--output {self.path} holds predictions that were made otherwise ({values}): name another file, or "
                "remove it"
            )

    def complete_lines(self) -> Iterator[Any]:
        """The rows of the file's complete lines. Raises UserError for a line that is no prediction."""
        if not self.size:
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    row = json.loads(line)
                    row[PREDICTION]
                except (ValueError, RecursionError, TypeError, LookupError) as error:
                    raise UserError(f"--output {self.path}, line {number}: no prediction; remove the file") from error
                yield row

    def skip_answered(self, rows: Iterator[tuple[str, Mapping[str, Any]]]) -> int:
        """Advances `rows`, (where, row as JSON has it), past those that are answered, and returns their number.

        Raises UserError where the file's lines are not of these rows.
        """
        count = 0
        for count, line in enumerate(self.complete_lines(), 1):
            where, row = next(rows, ("the end of the input", None))
            asked = {key: value for key, value in line.items() if key not in (PREDICTION, PROBABILITIES)}
            if asked != row:
                raise UserError(
                    f"--output {self.path}, line {count}: its row is not that of {where}, so the file belongs to "
                    "another input: name another file, or remove it"
                )
        return count

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Inside, lines can be added by write(); a torn last line is gone. Raises UserError when the disk refuses."""
        with self.reported():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self.path, "ab")  # noqa: SIM115 - closed below
        with file:
            with self.reported():
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate(self.size)
            write_atomically(self.settings_path, json.dumps(self.settings, indent=1) + "\n")
            yield file

    def write(self, file: BinaryIO, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds the lines, and sees that they reach the disk."""
        with self.reported():
            file.write(b"".join(to_line(row).encode() for row in rows))
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Turns an OSError into a UserError."""
        try:
            yield
        except BlockingIOError as error:
            raise UserError(f"--output {self.path}: another process is writing it") from error
        except OSError as error:
            raise UserError(
                f"cannot write --output {self.path}: {error.strerror or first_line(error)}; when that is mended, the "
                "same command goes on"
            ) from error


def to_line(row: Mapping[str, Any]) -> str:
    """The row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Consecutive lists of `size` rows; the last may be shorter."""
    chunk: list[Any] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
