"""Times, taken in turns so that a disturbance of the machine hits all contestants alike."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from adept.models.precision import tf32_products
from adept.training.clock import synchronize

Clock = Callable[[], float]
"""Seconds since some moment."""


def processor_seconds() -> float:
    """Processor time of this process, its threads and its finished children: what other programs disturb less."""
    return sum(os.times()[:4])


CLOCKS: Mapping[str, Clock] = {"wall": time.perf_counter, "processor": processor_seconds}


def time_call(work: Callable[[], object], device: torch.device, clock: Clock = time.perf_counter) -> float:
    """The seconds of work() by the clock, including all computation that it starts on the device."""
    synchronize(device)
    started = clock()
    work()
    synchronize(device)
    return clock() - started


def time_in_turns(
    works: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """{name: seconds of each repeat}. A repeat calls every work once and begins with another one each time."""
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for repeat in range(repeats):
        for k in range(len(names)):
            name = names[(k + repeat) % len(names)]
            times[name].append(time_call(works[name], device, clock))
    return times


def speedup(base: list[float], other: list[float]) -> dict[str, float]:
    """How many times faster `other` is than `base`: the median, the lowest and the highest ratio of a repeat."""
    ratios = [b / o for b, o in zip(base, other, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def measure_matmul_peak(device: torch.device, precision: str) -> float:
    """FLOP per second of the fastest of eight products of square matrices in that precision."""
    size, dtype = (8192 if device.type == "cuda" else 1536), torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    with tf32_products(precision == "tf32"):
        return 2 * size**3 / min(time_call(lambda: a @ b, device) for _ in range(8))
