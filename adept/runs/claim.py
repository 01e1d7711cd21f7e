"""The claim on a run: one process at a time does it."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import platform
import threading
import time
import uuid
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


HEARTBEAT_SECONDS = 20.0
"""Between two signs of life of a claim, which are the times of its file."""

SILENT_SECONDS = 120.0
"""A claim of another host that has given no sign of life for so long is void."""


@contextlib.contextmanager
def claim_run(results_dir: str, run_id: str) -> Iterator[None]:
    """Inside, this process has the run. The claim is a lock on a file, so it ends with the process.

    Some file systems have no locks, or locks that exclude no other host. So the file's time is a heartbeat, and where
    there are no locks, a file that only one process can create takes their place.
    Temporary files that a killed process left are removed. Raises RunClaimed, which names the other process, where one
    has the run, and UserError where the folder cannot be written to: before an hour of training, not after it.
    """
    path = lock_path(results_dir, run_id)
    made = [folder for folder in path.parents if not folder.exists()]
    with report_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_locked(path, run_id)
    path = Path(file.name)
    with file, heartbeat(file):
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
    """Opens and locks the file, or where there are no locks creates another, which is the claim.

    Raises RunClaimed where another process has it.
    """
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
            owner = file.read().decode(errors="replace")
            file.close()
            raise claimed(run_id, owner) from error
        except OSError as error:
            if is_same_file(path, file):
                path.unlink()
            file.close()
            reason = error.strerror or error
            print_status(
                f"{path.parent} has no file locks ({reason}): a file with a heartbeat is the claim on {run_id}"
            )
            return create_claim(path.with_suffix(".claim"), run_id)
        if is_same_file(path, file) and (owner := living_owner(path)) and not is_own_host(owner):
            file.close()  # the lock is good on this host alone
            raise claimed(run_id, owner)
        if is_same_file(path, file):
            return file
        file.close()  # its owner removed it after we had opened it


def create_claim(path: Path, run_id: str) -> BinaryIO:
    """Creates the file that is a claim without a lock. Raises RunClaimed where another process has it."""
    while True:
        try:
            return open(path, "xb", buffering=0)
        except FileExistsError:
            if owner := living_owner(path):
                raise claimed(run_id, owner) from None
        void = path.with_name(f"{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            path.rename(void)
            if living_owner(void):  # it has been renewed since we looked
                void.rename(path)
            else:
                void.unlink()


def living_owner(path: Path) -> str | None:
    """The "<pid> <host>" in a claim's file, None where it is void: its process is gone, or its host is silent."""
    try:
        owner, age = path.read_text(errors="replace"), time.time() - path.stat().st_mtime
    except OSError:
        return None
    pid = owner.partition(" ")[0]
    if not pid.isdigit():  # it is being written, or was never
        return owner or "unknown" if path.suffix == ".claim" and age < SILENT_SECONDS else None
    if not is_own_host(owner):
        return owner if age < SILENT_SECONDS else None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # it is another user's
        pass
    return owner


def is_own_host(owner: str) -> bool:
    return owner.partition(" ")[2] == platform.node()


def claimed(run_id: str, owner: str) -> RunClaimed:
    pid, _, host = owner.partition(" ")
    return RunClaimed(f"run {run_id} is being done by process {pid or 'unknown'} on host {host or 'unknown'}")


@contextlib.contextmanager
def heartbeat(file: BinaryIO) -> Iterator[None]:
    """Inside, a thread renews the file's time every HEARTBEAT_SECONDS."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # a disk that refuses once may take the next
                os.utime(file.fileno())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


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
