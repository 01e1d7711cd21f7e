"""The run record: one JSON file a run, written once and atomically when the run is complete; who may do the run."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import glob
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import torch

from adept import files
from adept.config import ROOT, UserError
from adept.files import write_atomically
from adept.track import say

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:
    from adept.data import Data, Example
    from adept.loop import Session

SCHEMA = 1
PACKAGES = ("torch", "transformers", "peft", "datasets", "numpy", "scipy", "scikit-learn")


def record_path(results_dir: str, run_id: str) -> Path:
    return Path(results_dir) / "runs" / f"{run_id}.json"


def run_folder(results_dir: str, run_id: str) -> Path:
    """Beside the record: the adapter, predictions.jsonl, metrics.jsonl, and checkpoints while the run is not finished."""
    return Path(results_dir) / "runs" / run_id


def find(results_dir: str, run_id: str) -> dict | None:
    """The record of a finished run, or None. Raises UserError for a file that is no record of this schema."""
    path = record_path(results_dir, run_id)
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--results_dir {results_dir}: {folder} is a file where a folder is needed; name another")
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=not_a_number)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable run record ({error}); move it away to run again") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UserError(
            f"{path} is not of schema {SCHEMA}; it was written by another version of adept: use that one, or another --results_dir"
        )
    if missing := PARTS.keys() - record.keys():
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; move it away to run again")
    for part, fits in PARTS.items():
        if not fits(record[part]):
            raise UserError(f"{path}: '{part}' is {record[part]!r:.80}, which no run writes; move the file away to run again")
    if record["run_id"] != run_id:
        raise UserError(f"{path} is the record of the run {record['run_id']}; give it that name, or move it away to run again")
    return record


def not_a_number(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}")


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def is_scores(value: Any) -> bool:
    """{metric: percent}, which is empty where nothing validates."""
    return isinstance(value, dict) and all(type(score) in (int, float) and abs(score) <= 1e6 for score in value.values())


def is_history(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and is_count(entry.get("step")) and is_scores(entry.get("validation")) for entry in value
    )


def is_prediction(value: Any) -> bool:
    """A line of predictions.jsonl."""
    if not isinstance(value, dict) or not isinstance(value.get("references"), list):
        return False
    texts = [value.get("id"), value.get("prediction"), value.get("group", ""), *value["references"]]
    return bool(value["references"]) and all(isinstance(text, str) for text in texts)


PARTS: dict[str, Callable[[Any], bool]] = {
    "run_id": lambda value: isinstance(value, str),
    "config": lambda value: isinstance(value, dict) and isinstance(value.get("task"), str) and is_count(value.get("steps")),
    "trainable_params": is_count,
    "history": is_history,
    "best_step": is_count,
    "validation": is_scores,
    "test": is_scores,
    "notes": lambda value: isinstance(value, list) and all(isinstance(note, str) for note in value),
}
"""What every reader of records needs, and what it looks like."""


# Claims -----------------------------------------------------------------------------------------------------------------


class Claimed(UserError):
    """Another process is at this run."""


@contextlib.contextmanager
def claim(results_dir: str, run_id: str) -> Iterator[None]:
    """Only one process at a time does a run; a claim vanishes with its process.

    Raises Claimed, which names the process, where another has it, and UserError where the folder cannot be written to: before an
    hour of training, not after it. What a killed process left half written is removed.
    """
    path = lock_path(results_dir, run_id)
    made = [folder for folder in path.parents if not folder.exists()]
    with files.told(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = locked(path, run_id)
    with file:
        try:
            with files.told(path.parent):
                file.truncate(0)
                file.write(f"{os.getpid()} {platform.node()}".encode())
                for left in half_written(results_dir, run_id):
                    left.unlink(missing_ok=True)
            yield
        finally:
            if is_at(path, file):  # removed while it is still locked: who waits for it sees that it is no longer the one at `path`
                path.unlink()
            with contextlib.suppress(OSError):  # not empty: something was done there
                for folder in made:
                    folder.rmdir()


def lock_path(results_dir: str, run_id: str) -> Path:
    return Path(results_dir) / "runs" / f".{run_id}.lock"


def locked(path: Path, run_id: str) -> BinaryIO:
    """The file, locked by this process. Raises Claimed."""
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
            raise Claimed(f"run {run_id} is being done by process {pid or 'unknown'} on host {host or 'unknown'}") from error
        except OSError as error:
            say(f"{path.parent} has no file locks ({error.strerror or error}): take care that no other process does {run_id}")
            return file
        if is_at(path, file):
            return file
        file.close()  # its owner removed it after we had opened it


def lock(file: BinaryIO) -> None:
    """Raises BlockingIOError where another process has the lock, OSError where there are none."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, "no fcntl on this system")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def half_written(results_dir: str, run_id: str) -> list[Path]:
    """Temporary files of a run, which a killed process leaves."""
    record, folder = record_path(results_dir, run_id), run_folder(results_dir, run_id)
    pattern = f".{glob.escape(record.name)}.*{files.TEMPORARY}"
    return [*record.parent.glob(pattern), *folder.glob(f".*{files.TEMPORARY}")]


def finished(results_dir: str, run_id: str) -> dict | None:
    """find(), and removes what a process left that was killed between writing the record and tidying up."""
    record = find(results_dir, run_id)
    checkpoints = [*run_folder(results_dir, run_id).glob("checkpoint*.safetensors")]
    if record is not None and (checkpoints or lock_path(results_dir, run_id).exists() or half_written(results_dir, run_id)):
        # It is not ours to remove, or its process is just doing so.
        with contextlib.suppress(UserError, OSError), claim(results_dir, run_id):
            for path in checkpoints:
                path.unlink(missing_ok=True)
    return record


# Writing ----------------------------------------------------------------------------------------------------------------


def write(results_dir: str, record: dict) -> Path:
    path = record_path(results_dir, record["run_id"])
    write_atomically(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return path


def write_predictions(path: Path, examples: Sequence[Example], predictions: Sequence[str]) -> None:
    """One line a test example: its id, the predicted string, the references, and its question where that has several rows."""
    lines = [
        json.dumps(
            {"id": e.id, "prediction": p, "references": list(e.references)} | ({"group": e.group} if e.group != e.id else {}),
            ensure_ascii=False,
        )
        for e, p in zip(examples, predictions, strict=True)
    ]
    write_atomically(path, "\n".join(lines) + "\n")


def make_record(session: Session, data: Data, param_groups: dict, history: list, best: dict, test: dict, timing: dict) -> dict:
    """The record as DESIGN's contract has it. `notes` says where the run differs from the paper's data."""
    config, task = session.config, session.task
    notes = []
    if task.sizes and config.few_shot is None and tuple(data.sizes.values()) != task.sizes:
        notes.append(f"sizes {'/'.join(map(str, data.sizes.values()))} differ from the paper's {'/'.join(map(str, task.sizes))}")
    return {
        "schema": SCHEMA,
        "run_id": config.run_id,
        "status": "completed",
        "config": dataclasses.asdict(config),
        "trainable_params": sum(p.numel() for p in session.trainables.values()),
        "total_params": sum(p.numel() for p in session.model.parameters()),
        "param_groups": param_groups,
        "history": history,
        "best_step": best["step"],
        "validation": best["validation"],
        "test": test,
        "sizes": data.sizes,
        "notes": notes,
        "timing": {name: round(value, 3) for name, value in timing.items()},
        "peak_memory_bytes": peak_memory(session.device),
        "provenance": {
            **git_state(),
            "python": platform.python_version(),
            "packages": {name: version for name in PACKAGES if (version := package_version(name))},
            "device": torch.cuda.get_device_name(session.device)
            if session.device.type == "cuda"
            else f"{session.device.type}, {torch.get_num_threads()} threads",
            "model_revision": getattr(session.model.config, "_commit_hash", None),
            "data_origin": data.origin,
            "data_fingerprint": data.fingerprint,
            "protocol": config.protocol,
        },
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def git_state() -> dict:
    """{"git": commit or None, "dirty": uncommitted changes in the code}."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    return {
        "git": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--", "adept", "configs", "train.py", "requirements.txt")),
    }


def table_line(record: dict) -> str:
    """One line: what ran and what came out."""

    def scores(split: str) -> str:
        return ", ".join(f"{metric} {value:.2f}" for metric, value in record[split].items())

    validation = f"  validation: {scores('validation')}" if record["validation"] else ""
    notes = "".join(f"  ({note})" for note in record["notes"])
    return (
        f"{record['run_id']}  {record['trainable_params']:,} trained parameters{validation}  test: {scores('test')}"
        f"  best step {record['best_step']} of {record['config']['steps']}{notes}"
    )
