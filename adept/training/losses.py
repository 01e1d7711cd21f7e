"""The loss of a batch that may hold the rows of several runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adept.data.example import IGNORED
from adept.models.likelihood import training_logits

BatchLosses = Callable[[nn.Module, dict[str, Tensor], int, int], Tensor]
"""The type of batch_losses(), plain or compiled."""


def batch_losses(model: nn.Module, batch: dict[str, Tensor], prefix: int, runs: int) -> Tensor:
    """[runs]: the mean loss over the target tokens of each run's rows.

    The runs' rows are equal blocks of the batch, one after the other. The first `prefix` tokens of a causal model's
    rows are the prompt, which passes through the model once for a run (training_logits). The model's own dropout there
    is one draw for all of a run's rows.
    """
    inputs = {name: batch[name] for name in batch.keys() - {"labels", "shift_labels", "targets"}}
    logits = training_logits(model, inputs, batch["labels"], prefix, runs)  # [B, L, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    losses = F.cross_entropy(logits, batch["labels"].flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view(runs, -1).sum(1) / batch["targets"]


def compiled_batch_losses() -> BatchLosses:
    """batch_losses() through torch.compile.

    Without CUDA graphs (mode "reduce-overhead"): steps in them failed tests/test_gpu.py on an H200.
    """
    return torch.compile(batch_losses)
