"""The loss of a batch that may hold the rows of several runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adept.data.example import IGNORED
from adept.models.recompute import expand_prompt_cache, prompt_cache

BatchLosses = Callable[[nn.Module, dict[str, Tensor], int, int], Tensor]
"""The type of batch_losses(), plain or compiled."""


def batch_losses(model: nn.Module, batch: dict[str, Tensor], prefix: int, runs: int) -> Tensor:
    """[runs]: the mean loss over the target tokens of each run's rows.

    The runs' rows are equal blocks of the batch, one after the other. The first `prefix` tokens of a causal model's
    rows are the prompt. They are the same in each row of a run and attend to nothing that follows, so their keys and
    values are computed once. The model's own dropout there is one draw for all of a run's rows.
    """
    batch = {name: tensor for name, tensor in batch.items() if name != "shift_labels"}
    targets, labels, rows = batch.pop("targets"), batch.pop("labels"), len(batch["input_ids"]) // runs
    if "logits_to_keep" not in batch:
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)
    if prefix:
        prompts = {name: batch[name][::rows, :prefix] for name in ("input_ids", "position_ids") if name in batch}
        if "position_ids" in batch:  # prompts of several lengths
            prompts["attention_mask"] = batch["attention_mask"][::rows, :prefix]
            batch["position_ids"] = batch["position_ids"][:, prefix:]
        keys = prompt_cache()
        model(**prompts, past_key_values=keys, use_cache=True, logits_to_keep=batch["logits_to_keep"].new_zeros(1))
        batch |= {"input_ids": batch["input_ids"][:, prefix:], "logits_to_keep": batch["logits_to_keep"] - prefix}
        batch["past_key_values"] = expand_prompt_cache(keys, rows)
    logits = model(**batch, use_cache=bool(prefix)).logits  # [B, L, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    losses = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view(runs, -1).sum(1) / targets


def compiled_batch_losses(device: torch.device, grad_accum: int) -> BatchLosses:
    """batch_losses() through torch.compile.

    On a GPU there is one CUDA graph for each shape, so that kernel launches do not limit a step's speed.
    """
    # Accumulated gradients would lie in memory that the next replay of a graph overwrites.
    graphs = device.type == "cuda" and grad_accum == 1
    return torch.compile(batch_losses, mode="reduce-overhead" if graphs else None)
