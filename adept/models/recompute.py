"""Activation checkpointing: a block keeps only its input and runs again in the backward pass.

This adds half of a step's arithmetic, since a frozen model's backward pass costs no more than its forward pass.

transformers' gradient_checkpointing_enable takes the cache away from the blocks, and with it the prompt that a causal
model's rows share. Here the blocks keep it, because the caches of this file do not change when a block runs twice.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks in order; of an encoder-decoder, the encoder's before the decoder's."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint_blocks(model: nn.Module) -> None:
    """Makes every block run again in the backward pass, with the same dropout, in place. Names and parameters stay."""
    for block in transformer_blocks(model):
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


class PromptCacheLayer(DynamicLayer):
    """Holds the keys and values of the last pass, which are part of the graph: gradients reach the prompt by them."""

    def update(self, keys: Tensor, values: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        self.keys, self.values, self.is_initialized = keys, values, True
        return keys, values


class FrozenCacheLayer(DynamicLayer):
    """Puts fixed keys and values in front of those of a pass. It does not store the latter, so a pass can run twice."""

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, keys: Tensor, values: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, keys], dim=-2), torch.cat([self.values, values], dim=-2)


def prompt_cache() -> Cache:
    """An empty cache for the pass over the prompt alone."""
    return Cache(layer_class_to_replicate=PromptCacheLayer)


def expand_prompt_cache(cache: Cache, rows: int) -> Cache:
    """The cache for the pass over the tokens after the prompt: each row of the prompt's cache, repeated `rows` times.

    cache: prompt_cache() after the pass over the prompt.
    """
    return Cache(
        layers=[
            FrozenCacheLayer(layer.keys.repeat_interleave(rows, dim=0), layer.values.repeat_interleave(rows, dim=0))
            for layer in cache.layers
        ]
    )
