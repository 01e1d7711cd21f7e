"""A side network beside T5 (ladder side tuning): it reads the blocks' outputs, and no gradient passes through T5.

Each of T5's stacks has a side stack of its width divided by a factor. The side state starts as a projection of the
embeddings, takes in the output of one of T5's blocks after another through a gate, and passes through a small block of
its own after each. The decoder's side blocks attend to what the encoder's made; the decoder's last side state, widened
again, goes to T5's own head in place of the decoder's state.

Hooks carry it, so T5's forward, generation, beams and likelihood scoring stay what they are: the encoder's output is
[its states ; the side states], which the decoder's hook takes apart again. The side blocks' keys and values lie in the
decoder's cache, in layers behind its own.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import ModelOutput
from transformers.models.t5.modeling_t5 import T5Stack

from adept.base.errors import UserError
from adept.models.dropout import patch_dropout
from adept.models.families import has_t5_attention
from adept.models.t5_attention import patch_encoder_attention

START = 0.01
"""The standard deviation of the projections' first weights."""
GATE_TEMPERATURE = 0.1


class SideStack(nn.Module):
    """The side network of one of T5's stacks, w wide, as T5 is D wide.

    h = down(drop(E)); then for each of `numbers`, with z the output of the stack's block of that number,
    h = mu h + (1 - mu) link(z) with mu = sigmoid(gate / GATE_TEMPERATURE), and h = block(h). The last state is
    drop(norm(h)).
    """

    def __init__(self, stack: T5Stack, factor: int, numbers: Sequence[int]):
        super().__init__()
        width = stack.config.d_model
        config = copy.deepcopy(stack.config)
        config.d_model, config.d_kv, config.d_ff = width // factor, config.d_kv // factor, config.d_ff // factor
        config.num_layers, config.vocab_size = len(numbers), 1
        side = patch_dropout(T5Stack(config))  # initialised as a T5 of this size
        if not stack.is_decoder:
            patch_encoder_attention(side)
        self.numbers, self.layers = tuple(numbers), len(stack.block) + len(numbers)
        self.down = projection(width, config.d_model)
        self.links = nn.ModuleList(projection(width, config.d_model) for _ in numbers)
        self.gates = nn.Parameter(torch.zeros(len(numbers)))
        self.blocks, self.norm, self.dropout = side.block, side.final_layer_norm, side.dropout
        for i, block in enumerate(self.blocks):  # where the cache keeps their keys and values
            for layer in block.layer[:-1]:
                attention = layer.SelfAttention if hasattr(layer, "SelfAttention") else layer.EncDecAttention
                attention.layer_idx = len(stack.block) + i
        # Of the pass that is being made: the encoder's last side states [B, T, w], which a decoder's attend to; the
        # states so far; the position biases of self- and cross-attention, which the first block makes for all.
        self.source: Tensor | None = None
        self.states: Tensor | None = None
        self.biases: Sequence[Tensor | None] = (None, None)

    def follow(self, number: int, block: nn.Module, args: tuple, kwargs: dict[str, Any], output: tuple) -> None:
        """A hook after T5's block `number`, of whose output it takes the states [B, T, D]."""
        embeddings, mask, _, _, source_mask, _ = args
        if number == 0:
            self.states, self.biases = self.down(embeddings), (None, None)
        if number not in self.numbers:
            return
        i = self.numbers.index(number)
        gate = torch.sigmoid(self.gates[i] / GATE_TEMPERATURE)
        states = gate * self.states + (1 - gate) * self.links[i](output[0])
        cache = kwargs.get("past_key_values")
        if isinstance(cache, EncoderDecoderCache):
            for part in (cache.self_attention_cache, cache.cross_attention_cache):
                part.layers.extend(DynamicLayer() for _ in range(self.layers - len(part.layers)))
        self.states, *self.biases = self.blocks[i](
            states, mask, self.biases[0], self.source, source_mask, self.biases[1], past_key_values=cache
        )

    def finish(self) -> Tensor:
        """The last state [B, T, w]."""
        states, self.states, self.source, self.biases = self.states, None, None, (None, None)
        return self.dropout(self.norm(states))


def projection(width: int, to: int) -> nn.Linear:
    """A linear layer with weights of N(0, START^2) and without a bias at first."""
    linear = nn.Linear(width, to)
    nn.init.normal_(linear.weight, std=START)
    nn.init.zeros_(linear.bias)
    return linear


class Ladder(nn.Module):
    """The side network of a T5: a side stack for each of its stacks, and the way back to T5's width."""

    def __init__(self, model: PreTrainedModel, factor: int, numbers: Sequence[int]):
        super().__init__()
        self.encoder = SideStack(model.encoder, factor, numbers)
        self.decoder = SideStack(model.decoder, factor, numbers)
        self.up = projection(model.config.d_model // factor, model.config.d_model)
        self.enabled = True
        """False: T5 computes as if there were no ladder."""

    def attach(self, model: PreTrainedModel) -> None:
        """Hangs the ladder into the model's forward passes, and puts it under the name `ladder`."""
        model.ladder = self
        for stack, side in ((model.encoder, self.encoder), (model.decoder, self.decoder)):
            for number in sorted({0, *side.numbers}):
                hook = functools.partial(self.after_block, side, number)
                stack.block[number].register_forward_hook(hook, with_kwargs=True)
        model.encoder.register_forward_hook(self.after_encoder)
        model.decoder.register_forward_pre_hook(self.before_decoder, with_kwargs=True)
        model.decoder.register_forward_hook(self.after_decoder)

    def after_block(self, side: SideStack, number: int, block: nn.Module, args, kwargs, output) -> None:
        if self.enabled:
            side.follow(number, block, args, kwargs, output)

    def after_encoder(self, encoder: nn.Module, args, output: ModelOutput) -> ModelOutput:
        """The encoder's output with [states ; side states], [B, T, D + w], as its last states."""
        if self.enabled:
            output.last_hidden_state = torch.cat([output.last_hidden_state, self.encoder.finish()], dim=-1)
        return output

    def before_decoder(self, decoder: nn.Module, args, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """The decoder reads the states without a graph, its side stack the side states."""
        if self.enabled:
            joined, width = kwargs["encoder_hidden_states"], self.up.out_features
            kwargs["encoder_hidden_states"] = joined[..., :width].detach()
            self.decoder.source = joined[..., width:]
        return args, kwargs

    def after_decoder(self, decoder: nn.Module, args, output: ModelOutput) -> ModelOutput:
        """The decoder's output with the widened side states [B, L, D] as its last states."""
        if self.enabled:
            output.last_hidden_state = self.up(self.decoder.finish())
        return output


def add_ladder(model: PreTrainedModel, factor: int, numbers: Sequence[int]) -> None:
    """Puts a ladder beside a T5, in place. numbers: of the blocks of both stacks that have a side block.

    Raises UserError for another family, and where the model's sizes do not fit factor and numbers.
    """
    if not has_t5_attention(model):
        raise UserError(
            f"method 'lst' has a side network for T5 alone, not for {type(model).__name__}: choose --model t5-base, or "
            "another --method"
        )
    config = model.config
    for name in ("d_model", "d_kv", "d_ff"):
        if getattr(config, name) % factor:
            raise UserError(f"--side_factor {factor} does not divide the model's {name}, {getattr(config, name)}")
    layers = min(config.num_layers, config.num_decoder_layers)
    if numbers[-1] >= layers:
        raise UserError(f"--side_blocks names block {numbers[-1]}, but the model's stacks have {layers}, from 0 on")
    with torch.device(model.device):
        Ladder(model, factor, numbers).attach(model)
