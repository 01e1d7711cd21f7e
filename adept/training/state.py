"""What training changes in a run, besides its session's parameters, its optimizer and the random generators."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from adept.base.errors import UserError
from adept.runs.record import Count, HistoryEntry, Part, Scores


@dataclass
class TrainState:
    """The progress of a run."""

    step: int = 0
    """Optimizer steps done."""
    history: list[dict] = field(default_factory=list)
    """{"step", "train_loss", "validation", "seconds"} of each evaluation."""
    best: dict = field(default_factory=dict)
    """{"step", "validation", "weights"}; empty before the first evaluation."""
    losses: list[float] = field(default_factory=list)
    """The loss of each step since the last evaluation."""
    shown: int = 0
    """The number of `losses` that are in metrics.jsonl."""
    unread: list[tuple[int, Tensor, list[str]]] = field(default_factory=list)
    """(step, loss, example ids) of the newest steps, on the device: reading each loss would stall a GPU."""
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    """Tokens of these examples, without padding."""
    logged: int = 0
    """The length of metrics.jsonl in bytes."""
    resumed: list[dict] = field(default_factory=list)
    """{"step", "git", "dirty"}: where the run was resumed, and the code until there."""
    stacked: int = 1
    """The largest number of runs that were computed together, this one included."""

    @property
    def evaluated(self) -> bool:
        """Whether the parameters as they are now have been evaluated."""
        return bool(self.history) and self.history[-1]["step"] == self.step

    def timing(self) -> dict[str, float]:
        """The record's "timing". Steps that a killed process lost do not count."""
        per_second = 1 / self.train_seconds if self.train_seconds else 0.0
        return {
            "train_seconds": self.train_seconds,
            "eval_seconds": self.eval_seconds,
            "examples_per_second": self.examples * per_second,
            "tokens_per_second": int(self.tokens) * per_second,
            "steps_per_second": self.step * per_second,
        }

    def read_losses(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Copies the unread losses from the device to `losses`.

        Raises UserError for the first that is not finite, with step, rates and example ids.
        """
        if not self.unread:
            return
        losses = torch.stack([loss for _, loss, _ in self.unread]).tolist()
        for (step, _, ids), loss in zip(self.unread, losses, strict=True):
            if not math.isfinite(loss):
                rates = ", ".join(f"{group['name']}: {group['initial_lr']:g}" for group in optimizer.param_groups)
                raise UserError(
                    f"the loss is {loss} at step {step + 1} (peak rates {rates}; examples {' '.join(ids)}): "
                    "lower the rates, or use --precision fp32"
                )
        self.losses += losses
        self.unread = []


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StoredBest(Part):
    """TrainState.best without its weights."""

    step: Count
    validation: Scores


class StoredState(Part):
    """TrainState's fields that a checkpoint holds as JSON.

    The losses and the best weights are among the checkpoint's tensors. No loss is unread when it is written.
    """

    step: Count
    history: list[HistoryEntry]
    best: StoredBest | Annotated[dict, Field(max_length=0)]
    shown: Count
    train_seconds: Seconds
    eval_seconds: Seconds
    examples: Count
    tokens: Count
    logged: Count
    resumed: list[dict]
    stacked: Count


class StoredText(Part):
    """A checkpoint's JSON: code, progress, and the random generators of Python and NumPy."""

    code: dict[str, Any]
    state: StoredState
    random: dict[str, Any]
