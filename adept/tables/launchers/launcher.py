"""What a launcher does, and what it says of a run that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from adept.config.run import RunConfig
from adept.training.run import StoppingRule

Job = tuple[RunConfig, StoppingRule | None]
"""A run, and the rule that may stop it early.

A stack is a sequence of jobs that are trained together; most stacks hold one.
"""

BUSY, STOPPED = "busy", "stopped early"

Outcome = str | None
"""How a run ended. None: its record is written. BUSY: another process is doing it. STOPPED: its rule stopped it.

Anything else says why it failed: one line, then details.
"""


class Mistake(str):
    """The outcome of a run that ended with a user's mistake, which another attempt would only repeat."""


SHUTDOWN_SECONDS = 60.0
"""How long an interrupted sweep waits for its runs to save their checkpoints."""


class Launcher(Protocol):
    """Carries out stacks of runs.

    A run writes to its own folder only, so launchers on several machines share nothing but the results folder.
    """

    slots: int
    """The number of stacks that it does at a time."""

    on_gpu: bool
    """Whether its runs use GPUs."""

    shares_devices: bool
    """Whether several stacks may be on one GPU, or on one machine's CPU, at a time."""

    def submit(self, stack: Sequence[Job]) -> None:
        """Starts a stack. The caller submits no more than `slots` at a time."""

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        """(run id, outcome) of the runs that ended; returns as soon as some have, after `seconds` at the latest."""

    def close(self) -> None:
        """Ends everything. When it returns, every unfinished run has saved its checkpoint."""


def by_run_id(stack: Sequence[Job], outcomes: Sequence[Outcome]) -> list[tuple[str, Outcome]]:
    """(run id, outcome) of each job of a stack."""
    return [(config.run_id, outcome) for (config, _), outcome in zip(stack, outcomes, strict=True)]
