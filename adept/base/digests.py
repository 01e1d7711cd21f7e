"""Digests of files: what a file holds, wherever it lies."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

DIGITS = 16
"""Hex digits of a digest."""


def file_digest(path: str | os.PathLike) -> str:
    """A digest of the file's content. A file is read again only when its size or its time has changed."""
    status = os.stat(path)
    return _content_digest(os.path.abspath(path), status.st_size, status.st_mtime_ns)


@functools.cache
def _content_digest(path: str, size: int, time: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def folder_digest(folder: str | os.PathLike, patterns: Iterable[str]) -> str:
    """A digest of the names and contents of those files of a folder whose names match one of the patterns."""
    files = sorted({path for pattern in patterns for path in Path(folder).glob(pattern)})
    text = "".join(f"{path.name}:{file_digest(path)}\n" for path in files)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
