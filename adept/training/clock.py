"""The wall-clock time of training, apart from evaluation and from saving."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

import torch


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has computed all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class TrainingClock:
    """Measures the training of runs that share their steps, between points at which the device has nothing left to do.

    Steps are not measured one by one, because a device works on them after the host has gone on. The time between two
    points, waiting for batches included, is divided among the steps made in it, and a step's time among its runs.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[Hashable, float] = Counter()
        """By run."""
        self.shares: dict[Hashable, float] = Counter()
        """{run: its steps since the last point, each divided by the number of runs in it}."""
        self.started = time.perf_counter()

    def count_step(self, runs: Sequence[Hashable]) -> None:
        """Enters a step that these runs made together."""
        for run in runs:
            self.shares[run] += 1 / len(runs)

    def settle(self) -> None:
        """Waits for the device, and divides the time since the last point among the steps made since then."""
        synchronize(self.device)
        now = time.perf_counter()
        steps = sum(self.shares.values())
        for run, share in self.shares.items():
            self.seconds[run] += (now - self.started) * share / steps
        self.shares.clear()
        self.started = now

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, no time counts for any run."""
        self.settle()
        try:
            yield
        finally:
            synchronize(self.device)
            self.started = time.perf_counter()
