"""Writes files completely or not at all, and reports what a disk refuses in one line."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from adept.base.errors import UserError

TEMPORARY = ".tmp"
"""The end of a file's name while it is written. The names begin with a dot."""

REMEDIES = {
    errno.ENOSPC: "free some space there, or choose another folder with --results_dir",
    errno.EDQUOT: "free some of your quota there, or choose another folder with --results_dir",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
}


@contextlib.contextmanager
def report_disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError raised while writing `path` into a UserError that names the path, the reason and a remedy."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno, "choose a folder that can be written to with --results_dir")
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; {remedy}, then the same command goes on"
        ) from error


def write_atomically(path: Path, content: str | bytes, *, previous: Path | None = None) -> None:
    """Writes the complete file or none, also when the power fails.

    It writes under a temporary name, syncs, renames, and syncs the folder. previous: the path to which an existing file
    is moved. Raises UserError when the disk refuses.
    """
    with report_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "wb", dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY, delete=False
        ) as file:
            try:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)  # temporary files are private; a record is for everyone
                if previous is not None and path.exists():
                    os.replace(path, previous)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Writes a folder's file names to the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
