"""The peak memory of a run, and errors of too little memory: one line, with the options that need less."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

import torch

from adept.base.errors import UserError
from adept.config.run import RunConfig

SIGNS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""In the RuntimeErrors of CUDA and MPS, of torch's allocator on the CPU, and of cuBLAS."""


class OutOfMemoryInEvaluation(UserError):
    """Memory ran out in an evaluation, which changes nothing of the training."""


class OutOfMemoryInTraining(UserError):
    """Memory ran out in a training step, before it changed a parameter."""


@contextlib.contextmanager
def report_out_of_memory(remedies: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Turns what Python, torch, CUDA or MPS raise when memory runs out into a `kind` that names the remedies."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in SIGNS):
            raise
        raise kind(f"out of memory {remedies}") from error


def release_memory(device: torch.device) -> None:
    """Frees what a step that ran out of memory still holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


# Peaks ----------------------------------------------------------------------------------------------------------------


def reset_peak_memory(device: torch.device) -> bool:
    """Begins a new measurement of the peak. Returns whether peak_memory() can then tell it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier runs have freed is not this one's
        Path("/proc/self/clear_refs").write_text("5")  # sets the recorded peak to the present size
        return "VmHWM" in process_memory()
    except (OSError, AttributeError):  # not Linux, or not permitted
        return False


def peak_memory(device: torch.device) -> int:
    """The peak since reset_peak_memory(), in bytes: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return process_memory()["VmHWM"]


def process_memory() -> dict[str, int]:
    """Resident bytes of this process: {"VmRSS": now, "VmHWM": at the peak}. Raises OSError except on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = (line.split(":") for line in lines)
    return {name: 1024 * int(rest.split()[0]) for name, rest in fields if name in ("VmRSS", "VmHWM")}


# Remedies -------------------------------------------------------------------------------------------------------------


def loading_remedies(config: RunConfig) -> str:
    """Options that need less memory while model and data are loaded."""
    half = "--precision bf16 halves the model, " if config.precision != "bf16" else ""
    return f"while loading {config.model}: {half}--model names a smaller one"


def training_remedies(config: RunConfig) -> str:
    """Options that need less memory while training.

    The first is the largest smaller --batch_size whose product with --grad_accum stays the same.
    """
    remedies = []
    if config.batch_size > 1:
        parts = next(p for p in range(2, config.batch_size + 1) if config.batch_size % p == 0)
        remedies.append(
            f"--batch_size {config.batch_size // parts} --grad_accum {config.grad_accum * parts} "
            f"(now {config.batch_size} and {config.grad_accum}) takes as many examples a step"
        )
    if config.precision != "bf16":
        remedies.append("--precision bf16 halves model and activations")
    if not config.checkpoint_activations:
        remedies.append("--checkpoint_activations keeps a fraction of the activations")
    remedies.append(f"--max_source_len (now {config.max_source_len}) shortens the longest batches")
    return f"while training: {'; '.join(remedies)}"


def evaluation_remedies(config: RunConfig) -> str:
    """Options that need less memory while evaluating."""
    if config.eval_batch_size > 1:
        smaller = f"--eval_batch_size {config.eval_batch_size // 2} (now {config.eval_batch_size})"
        return f"while evaluating: {smaller} needs less, and with it the same run goes on"
    return (
        f"while evaluating single rows: --max_source_len (now {config.max_source_len}) shortens them, in another run; "
        "this one goes on"
    )
