"""T5's attention with less arithmetic: same parameters, same result up to rounding.

MaskedBiasAttention is the encoder's. It adds the padding mask to the relative position bias once for all layers, where
transformers does so in each layer. In training on a CPU, where torch has no fused attention with dropout, it draws the
dropout masks of adept/models/dropout.py.

ShortTargetCrossAttention is the decoder's. It never forms the keys and values of the source tokens e_t, because it
applies their projections to the few queries instead: (W_q x) . (W_k e) = (W_k^T W_q x) . e and sum_t a_t (W_v e_t) =
W_v (sum_t a_t e_t). With L target tokens that costs L / d_kv of the arithmetic of the keys and values (d_kv = 64 at
T5-base), which saves an eighth of a training step with short targets.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.t5.modeling_t5 import T5Attention

from adept.models.dropout import draws_own_masks, dropout


def patch_attention(model: PreTrainedModel) -> None:
    """Gives a T5 this file's attention, in place. Names and parameters stay."""
    patch_encoder_attention(model.get_encoder())
    for block in model.get_decoder().block:
        block.layer[1].EncDecAttention.__class__ = ShortTargetCrossAttention


def patch_encoder_attention(encoder: nn.Module) -> None:
    """Gives the blocks of an encoder stack MaskedBiasAttention, in place."""
    for block in encoder.block:
        block.layer[0].SelfAttention.__class__ = MaskedBiasAttention


def restore_attention(module: nn.Module) -> None:
    """Gives the T5 attentions in a module, where patch_attention() changed them, transformers' own again, in place."""
    for attention in module.modules():
        if isinstance(attention, MaskedBiasAttention | ShortTargetCrossAttention):
            attention.__class__ = T5Attention


def apply_mask(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The masked scores. mask: booleans, False for what is not attended to, or numbers that are added."""
    if mask is None:
        return scores
    return torch.where(mask, scores, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask


def is_plain_matrix(linear: nn.Module) -> bool:
    """Whether the module does nothing but multiply with its weight."""
    return type(linear) is nn.Linear and linear.bias is None


class MaskedBiasAttention(T5Attention):
    """The encoder's self-attention. The position_bias [B, H, T, T] that it returns for the next layer is masked."""

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
            position_bias = self.compute_bias(length, length, device=hidden_states.device)  # [1, H, T, T]
            # Contiguous already here: else every layer would make and keep a contiguous copy.
            position_bias = apply_mask(position_bias.to(hidden_states.dtype).contiguous(), mask)
        if not (self.training and self.dropout and draws_own_masks(hidden_states)):
            return super().forward(hidden_states, None, key_value_states, position_bias, past_key_values, **kwargs)
        by_head = (*hidden_states.shape[:2], self.n_heads, self.key_value_proj_dim)
        queries, keys, values = (
            project(hidden_states).view(by_head).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        weights = (queries @ keys.transpose(2, 3) + position_bias).softmax(dim=-1)  # [B, H, T, T]
        weights = dropout(weights, self.dropout, self.training)
        return self.o((weights @ values).transpose(1, 2).flatten(2)), position_bias, weights


class ShortTargetCrossAttention(T5Attention):
    """The decoder's cross-attention in another order of summation. It keeps no cache of keys and values."""

    def forward(
        self,
        hidden_states: Tensor,
        mask=None,
        key_value_states=None,
        position_bias=None,
        past_key_values=None,
        **kwargs,
    ):
        """hidden_states [B, L, D], key_value_states [B, T, D], mask [B, 1, L, T] -> (output, position_bias, weights).

        The output is [B, L, D], the weights are [B, H, L, T].
        """
        if not (is_plain_matrix(self.k) and is_plain_matrix(self.v)):  # as with LoRA and BitFit
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
