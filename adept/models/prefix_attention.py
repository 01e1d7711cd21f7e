"""Trained keys and values in front of those of each attention (prefix-tuning), by transformers' attention interface.

An attention that calls the interface hands it its queries, keys and values just before they meet. The functions that
are registered here put the attention's own prefix in front of keys and values, let the mask and the position bias pass
it (a prefix is never masked and has no position), and call the model's own implementation. Keys are already rotated
and cached by then, so no position moves and no cache holds a prefix.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from adept.base.errors import UserError
from adept.models.families import has_t5_attention, input_embedding_owner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

START = 0.02
"""The standard deviation of a prefix's first values."""


class Prefix(nn.Module):
    """The prefix of one attention as a table: m keys and m values for each of its heads, N(0, START^2) at first."""

    def __init__(self, heads: int, length: int, key_width: int, value_width: int):
        super().__init__()
        self.keys = nn.Parameter(torch.randn(heads, length, key_width) * START)  # [H, m, d_k]
        self.values = nn.Parameter(torch.randn(heads, length, value_width) * START)  # [H, m, d_v]

    def forward(self) -> tuple[Tensor, Tensor]:
        """-> keys [H, m, d_k], values [H, m, d_v]"""
        return self.keys, self.values


class PrefixNetwork(nn.Module):
    """The part of the reparameterising network that all attentions of one kind share: embeddings -> Linear -> tanh."""

    def __init__(self, length: int, width: int, hidden: int):
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(length, width))  # [m, D], N(0, 1) as nn.Embedding
        self.linear = nn.Linear(width, hidden)

    def forward(self) -> Tensor:
        """-> [m, hidden]"""
        return torch.tanh(self.linear(self.embeddings))


class NetworkPrefix(nn.Module):
    """The prefix of one attention as its rows of the network's last layer, hidden -> keys and values."""

    def __init__(self, network: PrefixNetwork, heads: int, key_width: int, value_width: int):
        super().__init__()
        self.network, self.heads = network, heads
        self.to_keys = nn.Linear(network.linear.out_features, heads * key_width)
        self.to_values = nn.Linear(network.linear.out_features, heads * value_width)

    def forward(self) -> tuple[Tensor, Tensor]:
        """-> keys [H, m, d_k], values [H, m, d_v]"""
        states = self.network()
        keys, values = (linear(states).view(len(states), self.heads, -1) for linear in (self.to_keys, self.to_values))
        return keys.transpose(0, 1), values.transpose(0, 1)


# The attention itself -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionCall:
    """What an attention module handed to the interface in the recorded pass."""

    module: nn.Module
    heads: int
    key_width: int
    value_width: int
    crosses: bool
    """It read keys of another sequence than that of its queries."""


_recorded: list[AttentionCall] | None = None
"""The calls of the pass that record_attention() looks at, None outside it."""


def implementation_of(module: nn.Module, name: str) -> Callable:
    """The attention function of that name for a module: eager attention is the business of each family's own file."""
    if name == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward
    return AttentionInterface()[name]


def prefixed_attention(
    implementation: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None = None,
    **kwargs,
) -> tuple[Tensor, Tensor | None]:
    """The attention that `implementation` names, with the module's prefix, if it has one, in front.

    query [B, H, L, d_k], key [B, H', T, d_k], value [B, H', T, d_v], attention_mask [B, 1, L, T] and position_bias
    [1 or B, H, L, T], numbers that are added -> what the implementation returns.
    """
    if _recorded is not None:
        crosses = key.shape[2] != query.shape[2]
        _recorded.append(AttentionCall(module, key.shape[1], key.shape[3], value.shape[3], crosses))
    if (prefix := getattr(module, "prefix", None)) is not None:
        with torch.autocast(key.device.type, enabled=False):  # cheap, and autocast would round it
            keys, values = prefix()
        rows, length = len(key), keys.shape[1]
        key = torch.cat([keys.to(key.dtype).expand(rows, -1, -1, -1), key], dim=2)
        value = torch.cat([values.to(value.dtype).expand(rows, -1, -1, -1), value], dim=2)
        attention_mask, position_bias = (
            None if added is None else F.pad(added, (length, 0)) for added in (attention_mask, position_bias)
        )
    if attention_mask is None:
        kwargs["is_causal"] = False  # what is causal has a mask, see whole_mask()
    if position_bias is not None:
        kwargs["position_bias"] = position_bias
    return implementation_of(module, implementation)(module, query, key, value, attention_mask, **kwargs)


def whole_mask(*args, **kwargs) -> Tensor:
    """eager_mask(), which is made of numbers, and never left out.

    The causal mask that a kernel makes in its place would be that of queries and keys of one length.
    """
    return eager_mask(*args, **{**kwargs, "allow_is_bidirectional_skip": False})


PREFIXED = "prefixed_"
"""Before an implementation's name: that implementation with prefixes."""

for _name in ("sdpa", "eager"):
    AttentionInterface.register(PREFIXED + _name, functools.partial(prefixed_attention, _name))
    AttentionMaskInterface.register(PREFIXED + _name, whole_mask)


@contextmanager
def record_attention() -> Iterator[list[AttentionCall]]:
    """Inside, the list collects the calls of prefixed_attention()."""
    global _recorded
    _recorded = []
    try:
        yield _recorded
    finally:
        _recorded = None


# A model with prefixes ------------------------------------------------------------------------------------------------


def add_prefixes(model: PreTrainedModel, length: int, hidden: int, where: Literal["encoder", "all"]) -> None:
    """Gives each attention a prefix of `length` keys and values, as its child `prefix`, in place.

    hidden: width of the network that makes them, 0 for tables. where: the encoder's attentions alone, or all.
    Raises UserError for a model whose attentions do not call the interface.
    """
    encoder = model.get_encoder() if model.config.is_encoder_decoder else None
    if where == "encoder" and encoder is None:
        raise UserError(f"{type(model).__name__} has no encoder: --where all gives every attention a prefix")
    if has_t5_attention(model):
        from adept.models.t5_attention import restore_attention  # imports transformers' T5

        restore_attention(encoder if where == "encoder" else model)
    use_prefixed_attention(model)
    inside_encoder = set() if encoder is None else set(encoder.modules())
    calls = [call for call in attention_calls(model) if where == "all" or call.module in inside_encoder]
    reached = inside_encoder & {call.module for call in calls}
    if not calls or (encoder is not None and not reached):
        raise UserError(
            f"method 'prefix' cannot reach the attention of {type(model).__name__}, which does not call transformers' "
            "attention interface; T5, BART, Llama and GPT-2 do, --method lora, adept and pt do without"
        )
    width = input_embedding_owner(model).get_input_embeddings().weight.shape[1]
    networks: dict[tuple[bool, bool], PrefixNetwork] = {}
    with torch.device(model.device):
        for call in calls:
            if hidden:
                kind = call.module in inside_encoder, call.crosses
                if kind not in networks:
                    networks[kind] = PrefixNetwork(length, width, hidden)
                call.module.prefix = NetworkPrefix(networks[kind], call.heads, call.key_width, call.value_width)
            else:
                call.module.prefix = Prefix(call.heads, length, call.key_width, call.value_width)


def use_prefixed_attention(model: PreTrainedModel) -> None:
    """Puts prefixed_attention() around the model's implementation of attention, in its configs, in place."""
    name = PREFIXED + model.config._attn_implementation
    if name in AttentionInterface().valid_keys() and model._can_set_attn_implementation():
        model.set_attn_implementation(name)


@torch.no_grad()
def attention_calls(model: PreTrainedModel) -> list[AttentionCall]:
    """The attentions that call the interface, each once, in the order of a forward pass. Found by making one."""
    ids = torch.ones(1, 3, dtype=torch.long, device=model.device)
    inputs = {"decoder_input_ids": ids[:, :2]} if model.config.is_encoder_decoder else {}
    was_training = model.training
    with record_attention() as calls:
        model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **inputs)
    model.train(was_training)
    return list({call.module: call for call in calls}.values())
