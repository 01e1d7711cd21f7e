"""T5's attention with less arithmetic: same parameters, same result up to rounding.

MaskedBiasAttention, the encoder's, joins relative bias and padding mask once for all layers, where transformers does so
in each of them. While training on a CPU, where torch has no fused attention with dropout, its masks are those of
adept/models/dropout.py.

ShortTargetCrossAttention moves the projections of the source's keys and values to the few queries: (W_q x) . (W_k e) =
(W_k^T W_q x) . e and sum_t a_t (W_v e_t) = W_v (sum_t a_t e_t), so keys and values of the source tokens e_t are never
formed. L target tokens make that L / d_kv of their arithmetic (d_kv = 64 at T5-base), which saves an eighth of a step
with short targets.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5Attention

from adept.models.dropout import draws_own_masks, dropout


def apply_mask(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The scores with the mask in them, which is of booleans or to be added, as the model's own attention takes it."""
    if mask is None:
        return scores
    return torch.where(mask, scores, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask


class MaskedBiasAttention(T5Attention):
    """The encoder's self-attention. What it passes on as position_bias holds the mask already: [B, H, T, T]."""

    def forward(
        self,
        hidden_states: Tensor,
        mask=None,
        key_value_states=None,
        position_bias=None,
        past_key_values=None,
        **kwargs,
    ):
        """hidden_states [B, T, D], mask [B, 1, 1 or T, T] -> ([B, T, D], position_bias, weights)."""
        if position_bias is None:
            length = hidden_states.shape[1]
            position_bias = self.compute_bias(length, length, device=hidden_states.device).to(
                hidden_states.dtype
            )  # [1, H, T, T]
            position_bias = apply_mask(
                position_bias.contiguous(), mask
            )  # contiguous here, or every layer makes and keeps a copy that is
        if not (self.training and self.dropout and draws_own_masks(hidden_states)):
            return super().forward(hidden_states, None, key_value_states, position_bias, past_key_values, **kwargs)
        by_head = (*hidden_states.shape[:2], self.n_heads, self.key_value_proj_dim)
        queries, keys, values = (
            project(hidden_states).view(by_head).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        weights = dropout(
            (queries @ keys.transpose(2, 3) + position_bias).softmax(dim=-1), self.dropout, self.training
        )  # [B, H, T, T]
        return self.o((weights @ values).transpose(1, 2).flatten(2)), position_bias, weights


class ShortTargetCrossAttention(T5Attention):
    """T5's cross-attention in another order of summation; same parameters, same result up to rounding, no cache of keys
    and values.
    """

    def forward(
        self,
        hidden_states: Tensor,
        mask=None,
        key_value_states=None,
        position_bias=None,
        past_key_values=None,
        **kwargs,
    ):
        """hidden_states [B, L, D], key_value_states [B, T, D], mask [B, 1, L, T] -> ([B, L, D], position_bias, weights
        [B, H, L, T]).
        """
        if type(self.k) is not nn.Linear or type(self.v) is not nn.Linear:  # LoRA's are more than a matrix
            return super().forward(hidden_states, mask, key_value_states, position_bias, past_key_values, **kwargs)
        rows, targets, width = hidden_states.shape
        by_head = (self.n_heads, self.key_value_proj_dim, -1)
        queries = self.q(hidden_states).view(rows * targets, *by_head[:2]).transpose(0, 1)  # [H, B*L, d]
        queries = (queries @ self.k.weight.view(by_head)).transpose(0, 1).reshape(rows, -1, width)  # [B, L*H, D]
        scores = (queries @ key_value_states.transpose(1, 2)).view(rows, targets, self.n_heads, -1)  # [B, L, H, T]
        scores = apply_mask(scores, mask if mask is None else mask.transpose(1, 2))
        weights = dropout(scores.softmax(dim=-1), self.dropout, self.training)
        sums = weights.reshape(rows, -1, weights.shape[-1]) @ key_value_states  # [B, L*H, D]
        sums = sums.view(rows * targets, self.n_heads, width).transpose(0, 1)  # [H, B*L, D]
        values = (sums @ self.v.weight.view(by_head).transpose(1, 2)).transpose(0, 1)  # [B*L, H, d]
        return self.o(values.reshape(rows, targets, self.inner_dim)), position_bias, weights.transpose(1, 2)
