"""The prompt that all rows of an evaluation begin with: its keys and values are computed once for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache


class ComputedPrompt:
    """Keys and values of a prompt's tokens but the last, for the rows of a causal model that begin with it.

    The last token passes through the model with each row. It shows an offset that depends on the position (DePT's)
    where the prompt ends.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, ids: Sequence[int]):
        """ids [m]: the prompt's. model: a causal one in evaluation mode, with Capabilities.ignores_inner_padding."""
        self.ids = torch.tensor([list(ids[:-1])], device=model.device)  # [1, m - 1]
        cache, last = DynamicCache(), torch.tensor([self.length - 1], device=model.device)
        model(input_ids=self.ids, past_key_values=cache, use_cache=True, logits_to_keep=last)
        self.layers = [(layer.keys, layer.values) for layer in cache.layers]

    @property
    def length(self) -> int:
        """The number of tokens that are computed."""
        return self.ids.shape[1]

    def cache(self, rows: int) -> DynamicCache:
        """A cache that holds the prompt for each of so many rows, and that a pass may extend."""
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys.expand(rows, *keys.shape[1:]), values.expand(rows, *values.shape[1:]), number)
        return cache

    def put_first(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows with their padding between what is computed and the rest, in place of in front of the prompt.

        batch: {"input_ids", "attention_mask"} [B, T], padded on the left; returns the same of the same shapes. Where
        the padding was, some ids of the prompt may stand under the mask.
        """
        ids, mask = batch["input_ids"], batch["attention_mask"]
        before = self.ids.expand(len(ids), -1)
        return {
            "input_ids": torch.cat([before, ids[:, self.length :]], dim=1),
            "attention_mask": torch.cat([torch.ones_like(before), mask[:, : mask.shape[1] - self.length]], dim=1),
        }
