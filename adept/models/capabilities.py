"""What a model can do: its positions, whether a row may pass in two parts, whether left padding is ignored."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from adept.base.errors import UserError
from adept.models.families import input_embedding_owner

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Types of rotary positions whose frequencies depend on the length of the whole row."""


@dataclass(frozen=True)
class Capabilities:
    """What the code that trains, generates and scores asks about a model."""

    encoder_decoder: bool
    source_positions: int | None
    """The number of tokens of the longest row that the source stands in; None: no limit is known."""
    target_positions: int | None
    """The same of an encoder-decoder's target."""
    has_key_cache: bool
    """A row may pass through the model in two parts: keys and values are all that the second needs of the first."""
    ignores_left_padding: bool
    """Masked tokens in front of a row do not change its logits."""
    ignores_inner_padding: bool
    """Masked tokens between a row's first part, whose keys and values are there, and its second do not, either.

    That is, of rows within `window`.
    """
    window: int | None
    """The least number of columns before a token, padding counted, that some layer sees; None: each sees all."""

    @property
    def continues_source(self) -> bool:
        """The answer continues the source's own row, as a program does its first lines."""
        return not self.encoder_decoder

    def check_positions(self, prompt_len: int, max_source_len: int, answer_len: int) -> None:
        """Raises UserError where the longest row has more tokens than the model has positions. answer_len: with EOS."""
        source = f"--prompt_len {prompt_len} + --max_source_len {max_source_len}"
        answer, length = f"{answer_len} target tokens", prompt_len + max_source_len
        if self.encoder_decoder:
            rows = [(source, length, self.source_positions), (answer, answer_len, self.target_positions)]
        else:
            rows = [(f"{source} + {answer}", length + answer_len, self.source_positions)]
        for tokens, total, limit in rows:
            if limit is not None and total > limit:
                raise UserError(f"{tokens} exceed the model's {limit} positions")


def capabilities_of(model: PreTrainedModel) -> Capabilities:
    """What the model can do, before any method has changed it.

    Raises UserError for a model whose tokens see those that follow them, such as BERT.
    """
    encoder_decoder = model.config.is_encoder_decoder
    with_cache, text = not encoder_decoder and has_key_cache(model), model.config.get_text_config(decoder=True)
    left = inner = encoder_decoder or model.device.type == "meta"
    if not left:
        left, inner = ignored_padding(model)
    return Capabilities(
        encoder_decoder=encoder_decoder,
        source_positions=max_positions(model.config, "encoder" if encoder_decoder else "decoder"),
        target_positions=max_positions(model.config, "decoder") if encoder_decoder else None,
        has_key_cache=with_cache,
        ignores_left_padding=left,
        ignores_inner_padding=inner and with_cache,
        window=least_window(text) if with_cache else None,
    )


def accepts(model: nn.Module, name: str) -> bool:
    """Whether the model's forward has an argument of that name. model: may be wrapped by PEFT."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(model.forward).parameters


def max_positions(config: PretrainedConfig, side: str) -> int | None:
    """The number of positions of that side, "encoder" or "decoder"; None where no limit is known (T5, ALiBi, Mamba)."""
    own = getattr(config, side, config)  # T5Gemma has a config for each side
    own = own if hasattr(own, "get_text_config") else config
    names = [f"max_{side}_position_embeddings", "max_position_embeddings"]
    if not config.is_encoder_decoder:  # T5's files name n_positions too, but its positions are relative
        own, names = config.get_text_config(decoder=True), ["max_position_embeddings", "n_positions"]
    found = next((value for name in names if isinstance(value := getattr(own, name, None), int)), None)
    return found if found is not None and found > 0 else None


def has_key_cache(model: PreTrainedModel) -> bool:
    """Whether keys and values carry all that a causal model's later tokens need of the earlier ones, exactly.

    Not so for models with recurrent or convolutional states (Mamba, LFM2), with layers that share keys (Gemma 3n), and
    with rotary positions that depend on the length of the whole row.
    """
    from transformers.cache_utils import (
        DYNAMIC_LAYER_TYPE_MAPPING,
        DynamicLayer,
        DynamicSlidingWindowLayer,
        get_layer_types_and_kwargs,
    )

    if model._is_stateful or not accepts(model, "past_key_values"):
        return False
    config = model.config.get_text_config(decoder=True)
    kinds = {DYNAMIC_LAYER_TYPE_MAPPING.get(kind) for kind in get_layer_types_and_kwargs(config)[0]}
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer} and not rope_types(config) & set(LENGTH_DEPENDENT_ROPE)


def least_window(config: PretrainedConfig) -> int | None:
    """Capabilities.window of a model with a cache of keys."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    windows = [own["sliding_window"] for own in get_layer_types_and_kwargs(config)[1] if "sliding_window" in own]
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        windows.append(config.window_size)
    return min(windows, default=None)


def rope_types(config: PretrainedConfig) -> set[str]:
    """The types of a model's rotary positions; a config may have one for each kind of layer."""

    def within(value: Any) -> set[str]:
        if not isinstance(value, dict):
            return set()
        own = {value[name] for name in ("rope_type", "type") if isinstance(value.get(name), str)}
        return own.union(*map(within, value.values()))

    return within(getattr(config, "rope_parameters", None))


@torch.no_grad()
def ignored_padding(model: PreTrainedModel) -> tuple[bool, bool]:
    """Whether the logits of a causal model's row are the same with padding in front of it, and within it, by trying it.

    Raises UserError where the logits of a token depend on those that follow it.
    """
    one, other = 1, 2
    rows = [[one, other, one], [one, other, other], [one, one, other], [one, one, other]]
    ids = torch.tensor(rows, device=model.device)
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 0, 1]], device=model.device)
    inputs = {"input_ids": ids, "attention_mask": mask}
    inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    was_training = model.training
    model.eval()
    logits = model(**{name: value for name, value in inputs.items() if accepts(model, name)}).logits.float()
    model.train(was_training)
    exact = model.dtype == torch.float32
    if difference(logits[0, :2], logits[1, :2]) > (1e-3 if exact else 0.1):
        raise UserError(
            f"{type(model).__name__} does not write from left to right: what it says of a token depends on those that "
            "follow; --model takes decoder-only models (GPT, Llama) and encoder-decoders (T5, BART)"
        )
    most = 1e-3 if exact else 0.02
    return difference(logits[0, :2], logits[2, 1:]) < most, difference(logits[0, :2], logits[3, ::2]) < most


def difference(logits: torch.Tensor, others: torch.Tensor) -> float:
    """The norm of the difference of two sets of logits, as a fraction of their spread."""
    spread = (logits - logits.mean(-1, keepdim=True)).norm()
    return ((logits - others).norm() / spread).item()


class ForeignLookups(TorchFunctionMode):
    """Inside, `tables` collects the weights that ids from `first` on are looked up in."""

    def __init__(self, first: int):
        super().__init__()
        self.first, self.tables = first, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.embedding and (args[0] >= self.first).any():
            self.tables.append(args[1])
            args = (torch.zeros_like(args[0]), *args[1:])
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def check_prompt_ids(model: PreTrainedModel, first: int) -> None:
    """Raises UserError for a model that looks the ids of its input up in a second table, which has no row for a prompt.

    model: with its prompted embedding in place. first: the id of the first prompt row.
    """
    ids = torch.tensor([[first]], device=model.device)
    was_training = model.training
    with ForeignLookups(first) as lookups:
        input_embedding_owner(model.eval())(input_ids=ids, attention_mask=torch.ones_like(ids))
    model.train(was_training)
    names = [name for name, weight in model.named_parameters() if any(weight is table for table in lookups.tables)]
    if names:
        raise UserError(
            f"{type(model).__name__} looks token ids up in a second table, {names[0]}, which has no row for a prompt; "
            "--method full, lora and zero_shot need no prompt"
        )
