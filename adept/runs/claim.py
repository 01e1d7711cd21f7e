"""The claim on a run: one process at a time does it."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adept.base.atomic_files import TEMPORARY, report_disk_errors
from adept.base.console import print_status
from adept.base.errors import UserError
from adept.runs.layout import lock_path, record_path, run_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class RunClaimed(UserError):
    """Another process is doing this run."""


@contextlib.contextmanager
def claim_run(results_dir: str, run_id: str) -> Iterator[None]:
    """Inside, this process has the run. The claim is a lock on a file, so it ends with the process.

    Temporary files that a killed process left are removed. Raises RunClaimed, which names the other process, where one
    has the run, and UserError where the folder cannot be written to: before an hour of training, not after it.
    """
    path = lock_path(results_dir, run_id)
    made = [folder for folder in path.parents if not folder.exists()]
    with report_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_locked(path, run_id)
    with file:
        try:
            with report_disk_errors(path.parent):
                file.truncate(0)
                file.write(f"{os.getpid()} {platform.node()}".encode())
                for leftover in unfinished_files(results_dir, run_id):
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            # Removed while it is still locked, so that a process that waits for it sees that it is gone from `path`.
            if is_same_file(path, file):
                path.unlink()
            with contextlib.suppress(OSError):  # not empty: something was done there
                for folder in made:
                    folder.rmdir()


def open_locked(path: Path, run_id: str) -> BinaryIO:
    """Opens and locks the file. Raises RunClaimed where another process has the lock."""
    while True:
        try:
            file = open(path, "ab+", buffering=0)  # noqa: SIM115 - the claim closes it
        except FileNotFoundError:  # another claim, under which nothing was done, has just taken its folder away
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            lock(file)
        except BlockingIOError as error:
            file.seek(0)
            pid, _, host = file.read().decode(errors="replace").partition(" ")
            file.close()
            raise RunClaimed(
                f"run {run_id} is being done by process {pid or 'unknown'} on host {host or 'unknown'}"
            ) from error
        except OSError as error:
            reason = error.strerror or error
            print_status(f"{path.parent} has no file locks ({reason}): take care that no other process does {run_id}")
            return file
        if is_same_file(path, file):
            return file
        file.close()  # its owner removed it after we had opened it


def lock(file: BinaryIO) -> None:
    """Locks the file. Raises BlockingIOError where another process has the lock, OSError where there are no locks."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, "no fcntl on this system")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_same_file(path: Path, file: BinaryIO) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def unfinished_files(results_dir: str, run_id: str) -> list[Path]:
    """Temporary files of a run that a killed process left."""
    record, folder = record_path(results_dir, run_id), run_folder(results_dir, run_id)
    pattern = f".{glob.escape(record.name)}.*{TEMPORARY}"
    return [*record.parent.glob(pattern), *folder.glob(f".*{TEMPORARY}")]
