"""One optimizer step: of a run, or of several runs stacked on one frozen model.

The batches of stacked runs pass through the model together, each row with its own run's prompt and offset. Nothing that
is trained is shared, so the gradient of the sum of the runs' losses is each run's own gradient: stacked runs are
separate runs up to the order of summation. Dropout inside the model is the exception: a stacked run draws other masks
than it would alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adept.base import distributed
from adept.data.batches import Batch
from adept.training.optim import set_rates
from adept.training.session import Session
from adept.training.stack import Stack


@dataclass(frozen=True)
class StepInput:
    """What a run's next optimizer step works on: its grad_accum batches, and the schedule's multiplier of its rates."""

    session: Session
    optimizer: torch.optim.Optimizer
    batches: tuple[Batch, ...]
    multiplier: float

    @property
    def weights(self) -> list[float]:
        """The weight of each batch's mean loss in the step's loss (--accumulate)."""
        if self.session.config.accumulate == "batches":
            return [1 / len(self.batches)] * len(self.batches)
        counts = [float(batch.inputs["targets"]) for batch in self.batches]
        return [count / sum(counts) for count in counts]


@dataclass(frozen=True)
class StepResult:
    """The result of a run's optimizer step."""

    loss: Tensor
    """The step's loss (--accumulate), on the device: reading it would stall a GPU."""
    runs: int
    """The number of runs that were computed together."""


def next_step_input(
    session: Session, optimizer: torch.optim.Optimizer, batches: Iterator[Batch], multiplier: float
) -> StepInput:
    """The input of a step on the next --grad_accum of `batches`."""
    return StepInput(session, optimizer, tuple(itertools.islice(batches, session.config.grad_accum)), multiplier)


def optimized_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that the optimizer updates, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def train_step(inputs: Sequence[StepInput], stack: Stack | None = None) -> list[StepResult]:
    """Makes one optimizer step of each run, with forward passes for all runs together.

    The runs' stack_key()s must be equal. stack: of the same runs, if it has been made already.
    """
    stack = stack or Stack([step.session for step in inputs])
    total = torch.zeros(len(inputs), device=stack.device)
    weights = torch.tensor([step.weights for step in inputs], dtype=torch.float64)  # [runs, batches]
    for i, batches in enumerate(zip(*(step.batches for step in inputs), strict=True)):
        with inputs[0].session.precision():  # in the backward pass, too
            losses = stack.losses([batch.inputs for batch in batches])
            losses = losses * weights[:, i].to(losses, non_blocking=True)
            losses.sum().backward()
        total = total + losses.detach()
    gradients = [p.grad for step in inputs for p in optimized_parameters(step.optimizer) if p.grad is not None]
    distributed.all_reduce_sum([total, *gradients])
    for step in inputs:
        set_rates(step.optimizer, step.multiplier)
        if norm := step.session.config.max_grad_norm:
            nn.utils.clip_grad_norm_(optimized_parameters(step.optimizer), norm)
        step.optimizer.step()
        step.optimizer.zero_grad(set_to_none=True)
    return [StepResult(loss, len(inputs)) for loss in total]
