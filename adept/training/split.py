"""Without padding: a batch in parts, each of rows of similar lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adept.data.example import IGNORED
from adept.training.losses import batch_losses

PART_COST = 32
"""What a part costs besides its tokens, in tokens."""


def split_batch_losses(model: nn.Module, batch: dict[str, Tensor], prefix: int, runs: int) -> Tensor:
    """batch_losses() of a single run, in the parts that make the least work on a CPU: the same sum, without padding.

    Dropout inside the model draws other masks than it would for the whole batch.
    """
    if runs > 1:  # their rows are equal blocks
        return batch_losses(model, batch, prefix, runs)
    return torch.stack([batch_losses(model, part, prefix, runs) for part in split_batch(batch, prefix)]).sum(0)


def split_batch(batch: dict[str, Tensor], prefix: int) -> list[dict[str, Tensor]]:
    """The batch's rows in parts, without the columns that only other parts need.

    batch: Batch.inputs of a run. Its "targets", the number of target tokens, are those of the whole batch in each part.
    prefix: the number of prompt tokens of a causal model, which pass through it once a part.
    """
    mask = batch["attention_mask"]
    widths = mask.shape[1] - mask.flip(1).argmax(1)  # [B]: up to the last token; padding on the left stays
    order = widths.argsort(stable=True)
    widths = widths[order].tolist()
    parts, first = [], 0
    for rows in cheapest_parts([width - prefix for width in widths], PART_COST + prefix):
        own, width = order[first : first + rows], widths[first + rows - 1]
        part = {name: batch[name][own, :width] for name in ("input_ids", "attention_mask")}
        labels = batch["labels"][own]
        if "logits_to_keep" in batch:
            used = (labels != IGNORED).any(0)
            part["logits_to_keep"] = batch["logits_to_keep"][used]
            part["labels"] = part["shift_labels"] = labels[:, used]
        else:
            part["labels"] = labels[:, : int((labels != IGNORED).sum(1).max())]
        parts.append(part | {"targets": batch["targets"]})
        first += rows
    return parts


def cheapest_parts(widths: Sequence[int], part_cost: int) -> list[int]:
    """The numbers of rows of consecutive parts for which the sum of rows * width + part_cost is least.

    widths: of the rows, ascending. A part is as wide as its last row.
    """
    costs, starts = [0], [0]  # of the first 0, 1, ... rows: their least sum, and where their last part begins
    for end, width in enumerate(widths, 1):
        cost, start = min((costs[start] + (end - start) * width + part_cost, start) for start in range(end))
        costs.append(cost)
        starts.append(start)
    parts, end = [], len(widths)
    while end:
        parts.append(end - starts[end])
        end = starts[end]
    return parts[::-1]
