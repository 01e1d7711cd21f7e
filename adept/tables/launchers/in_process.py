"""Runs in this process, one stack after the other."""

from __future__ import annotations

from collections.abc import Sequence

from adept.tables.launchers.launcher import Job, Outcome, by_run_id
from adept.tables.launchers.run_stack import run_stack


class InProcess:
    """Carries out a stack inside wait(), which returns when the stack has ended."""

    slots, shares_devices = 1, False

    def __init__(self):
        import torch

        self.on_gpu = torch.cuda.is_available()
        self.submitted: Sequence[Job] = ()

    def submit(self, stack: Sequence[Job]) -> None:
        self.submitted = stack

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        stack, self.submitted = self.submitted, ()
        return by_run_id(stack, run_stack(stack)) if stack else []

    def close(self) -> None: ...
