"""The prompts that the rows of an evaluation begin with: their keys and values are computed once for all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache


@dataclass(frozen=True)
class ComputedPrompt:
    """Keys and values of a prompt's tokens but the last, for the rows of a causal model that begin with it.

    The last token passes through the model with each row. It shows an offset that depends on the position (DePT's)
    where the prompt ends. One prompt is for all rows of a batch, several are one for each row.
    """

    ids: Tensor
    """[P, m]: of P prompts, padded on the left."""
    mask: Tensor
    """[P, m]: 1 where there is a token."""
    layers: Sequence[tuple[Tensor, Tensor]]
    """Of each layer, the keys and values [P, heads, m, dim]."""

    @property
    def length(self) -> int:
        """The number of tokens that are computed, of the longest prompt."""
        return self.ids.shape[1]

    def widened(self, length: int) -> ComputedPrompt:
        """The same, padded to this length."""
        left = length - self.length
        return ComputedPrompt(
            F.pad(self.ids, (left, 0)),
            F.pad(self.mask, (left, 0)),
            [tuple(F.pad(part, (0, 0, left, 0)) for part in layer) for layer in self.layers],
        )

    def cache(self, rows: int) -> DynamicCache:
        """A cache that holds the prompt of each of so many rows, and that a pass may extend.

        A batch may hold each of its rows several times, side by side.
        """
        cache, repeats = DynamicCache(), rows // len(self.ids)
        for number, layer in enumerate(self.layers):
            if len(self.ids) == 1:
                keys, values = (part.expand(rows, *part.shape[1:]) for part in layer)
            else:
                keys, values = (part.repeat_interleave(repeats, dim=0) for part in layer)
            cache.update(keys, values, number)
        return cache

    def put_first(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows with their padding between what is computed and the rest, in place of in front of the prompt.

        batch: {"input_ids", "attention_mask"} [B, T], padded on the left; returns the same, wider where the longest
        prompt and the longest rest are those of different rows. Where the padding is, some ids of the prompt may stand
        under the mask.
        """
        ids, mask = batch["input_ids"], batch["attention_mask"]
        before, is_prompt = self.ids.expand(len(ids), -1), self.mask.expand(len(ids), -1)
        rest = mask.sum(1, keepdim=True) - is_prompt.sum(1, keepdim=True)  # [B, 1]: the tokens that are not computed
        width = max(ids.shape[1] - self.length, int(rest.max()))
        is_rest = torch.arange(width, 0, -1, device=ids.device) <= rest
        return {
            "input_ids": torch.cat([before, ids[:, ids.shape[1] - width :]], dim=1),
            "attention_mask": torch.cat([is_prompt, is_rest.to(mask)], dim=1),
        }


@torch.no_grad()
def compute_prompt(model: nn.Module, ids: Sequence[int]) -> ComputedPrompt:
    """The prompt `ids` [m], m > 1, of a causal model in evaluation mode, with Capabilities.ignores_inner_padding."""
    tokens = torch.tensor([list(ids[:-1])], device=model.device)  # [1, m - 1]
    cache, last = DynamicCache(), torch.tensor([tokens.shape[1] - 1], device=model.device)
    model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=last)
    return ComputedPrompt(tokens, torch.ones_like(tokens), [(layer.keys, layer.values) for layer in cache.layers])


def join_prompts(prompts: Sequence[ComputedPrompt | None]) -> ComputedPrompt | None:
    """The prompts of a batch's rows, each one's; None where no row has one that is computed."""
    known = [prompt for prompt in prompts if prompt is not None]
    if not known:
        return None
    nothing = ComputedPrompt(
        known[0].ids[:, :0],
        known[0].mask[:, :0],
        [tuple(part[..., :0, :] for part in layer) for layer in known[0].layers],
    )
    longest = max(prompt.length for prompt in known)
    wide = {id(prompt): (prompt or nothing).widened(longest) for prompt in prompts}
    rows = [wide[id(prompt)] for prompt in prompts]
    layers = zip(*(row.layers for row in rows), strict=True)
    return ComputedPrompt(
        torch.cat([row.ids for row in rows]),
        torch.cat([row.mask for row in rows]),
        [tuple(map(torch.cat, zip(*layer, strict=True))) for layer in layers],
    )
