"""What a launcher is, and what it says of a run that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from adept.config.run import RunConfig
from adept.training.run import StoppingRule

BUSY, STOPPED = "busy", "stopped early"


Outcome = str | None
"""None: the record is written. BUSY: another process has the run. STOPPED: it was stopped early. Else why it failed:
one line, then details."""


Job = tuple[RunConfig, StoppingRule | None]
"""A run, and the rule that may stop it early."""


PATIENCE = 60.0
"""Seconds for the runs that are going to save their checkpoints when a sweep is interrupted."""


class Launcher(Protocol):
    """Carries out stacks of runs, mostly of one run. What a run writes goes to its own folder, so launchers on several
    machines need nothing in common but the results folder."""

    slots: int
    """Stacks at a time."""
    on_gpu: bool

    def submit(self, stack: Sequence[Job]) -> None:
        """Starts a stack, in a free slot."""

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        """(run id, outcome) of what ended within so many seconds."""

    def close(self) -> None:
        """Ends everything. When it returns, every run that was going has saved its checkpoint."""


def by_run_id(stack: Sequence[Job], outcomes: Sequence[Outcome]) -> list[tuple[str, Outcome]]:
    return [(config.run_id, outcome) for (config, _), outcome in zip(stack, outcomes, strict=True)]
