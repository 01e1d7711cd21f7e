"""Measures what a training step needs on a device: memory, operations, floating-point operations."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from adept.bench.contestants import Contestant
from adept.bench.profiles import STYLES
from adept.models.families import BUNDLED, forward_flops
from adept.models.loading import random_model
from adept.training.memory import peak_memory, process_memory, reset_peak_memory
from adept.training.session import Session

# Memory ---------------------------------------------------------------------------------------------------------------


def measure_step_memory(contestant: Contestant, batch: list[int]) -> int:
    """Bytes that a training step on `batch` allocates at its peak beyond what was allocated before it.

    0 where the operating system does not report a process's peak.
    """
    gc.collect()
    device = contestant.session.device
    if not reset_peak_memory(device):
        return 0
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else process_memory()["VmRSS"]
    contestant.train([batch])
    return peak_memory(device) - before


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024 * int(fields["MemAvailable"].split()[0])


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, trained ones included."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def why_model_does_not_fit(name: str, styles: Sequence[str], device: torch.device) -> str | None:
    """Why the device cannot hold a model once in fp32 and once more for each style in bf16, or None if it can."""
    if name == BUNDLED:
        return None
    bytes_per_parameter = 4 + 2 * sum(STYLES[style].fields.get("precision") == "bf16" for style in styles)
    needed = bytes_per_parameter * sum(p.numel() for p in random_model(name, "meta").parameters())
    free = free_memory(device)
    if needed > 0.9 * free:
        return f"the weights need {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free"
    return None


def why_step_does_not_fit(contestant: Contestant) -> str | None:
    """Why a step on the widest batch does not fit into memory, judged by a step on two of its rows, or None."""
    widest = contestant.batches[-1]
    needed = measure_step_memory(contestant, widest[:2]) * len(widest) / 2
    free = free_memory(contestant.session.device)
    if needed > 0.9 * free:
        return f"a step needs about {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free"
    return None


# Operations -----------------------------------------------------------------------------------------------------------


class OperationCounter(TorchDispatchMode):
    """Counts the operations that are dispatched to the device, views left out.

    In eager mode that is about the number of kernels that a GPU launches.
    """

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += not function.is_view
        return function(*arguments, **(keywords or {}))


def count_operations(contestant: Contestant) -> int | None:
    """Operations of a training step, divided by the number of stacked runs; None for a compiled step."""
    if contestant.session.config.compile:
        return None
    with OperationCounter() as counter:
        contestant.train(contestant.batches[:1])
    return counter.count // len(contestant.sessions)


def step_flops(session: Session, row_lengths: list[tuple[int, int]]) -> float:
    """FLOP of a training step on rows of these (source, target) lengths, padding not counted.

    Frozen weights have no gradients, so the backward pass of a linear layer costs as much as its forward pass. Both
    factors of an attention product have gradients, so its backward pass costs twice as much.
    """
    linear = attention = 0.0
    for source, target in row_lengths:
        row_linear, row_attention = forward_flops(session.model.config, source, target, session.shared_prefix)
        linear, attention = linear + row_linear, attention + row_attention
    return 2 * linear + 3 * attention
