"""Models of transformers' own classes that hold a prompt and an offset as rows of their tables.

A prompt's rows follow those of the vocabulary, and an offset that depends on the token alone is in its token's row. The
output head needs a row for each of them, too: the mean of all rows. Its logit is the mean of the others, so greedy
decoding never takes it, and by Jensen's inequality its probability is at most 1/V. Rows of zeros would have a logit of
0, which may be the highest.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adept.base.errors import UserError, first_line
from adept.models.families import SHARED_TABLE, position_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SILENT = -1e4
"""The bias of an output that is never to be generated, where the head has biases."""


@dataclass(frozen=True)
class PlainModel:
    """A model that is to be saved. It holds the weights of the one it was made from."""

    model: PreTrainedModel
    """Not to be run: its buffers without a file have no values."""
    rows: int
    """Rows of its input embedding."""
    shift: int = 0
    """Added to a source's ids: 0, or V where sources have rows of their own behind the targets'."""


def plain_model(
    model: PreTrainedModel, prompt: Tensor, table: Tensor | None = None, *, compact: bool = False
) -> PlainModel:
    """The model with rows for a prompt, and with other rows for the source's tokens.

    model: with its own input embedding, whose trained weights stay shared. prompt [m, D]; table [V, D] in place of the
    rows that the source addresses, None where it addresses the model's own. Both are weights, before the scale that
    some families' embeddings have. compact: an encoder-decoder gets a table for its encoder and one for its decoder,
    which transformers before 5 takes for one.

    Raises UserError for a model whose class has no place for what a method has put into it.
    """
    if compact and (table is None or not model.config.is_encoder_decoder):
        raise UserError(
            "--compact gives encoder and decoder a table each, which only an encoder-decoder's offset needs"
        )
    if model.config.is_encoder_decoder:
        return plain_encoder_decoder(model, prompt, table, compact)
    config, state = copy.deepcopy(model.config), model.state_dict()
    if table is None and not len(prompt):
        return PlainModel(of_state(model, config, state), len(model.get_input_embeddings().weight))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    table = embedding.weight if table is None else table
    state[f"{name_of(model, embedding)}.weight"] = rows = torch.cat([table, prompt.to(table)])
    name = name_of(model, head)
    state[f"{name}.weight"] = with_mean_rows(head.weight, len(prompt))
    if getattr(head, "bias", None) is not None:
        state[f"{name}.weight"][len(table) :] = 0
        state[f"{name}.bias"] = torch.cat([head.bias, head.bias.new_full((len(prompt),), SILENT)])
    for part in (config, config.get_text_config(decoder=True)):
        part.vocab_size, part.tie_word_embeddings = len(rows), False
    return PlainModel(of_state(model, config, state), len(rows))


def plain_encoder_decoder(model: PreTrainedModel, prompt: Tensor, table: Tensor | None, compact: bool) -> PlainModel:
    """plain_model() of T5 and its relatives, where encoder, decoder and mostly the head share a table.

    A prompt alone takes rows behind the shared table. Where the source's tokens have rows of their own, these follow
    the targets' in the one table, because transformers before 5 cannot load two.
    """
    if model.config.model_type not in SHARED_TABLE and (table is not None or len(prompt)):
        known = ", ".join(SHARED_TABLE)
        raise UserError(
            f"{type(model).__name__} has no plain form with a prompt or an offset, which {known} and decoder-only "
            "models have; --as peft may hold them"
        )
    config, state = copy.deepcopy(model.config), model.state_dict()
    own = model.shared.weight
    if table is None and not len(prompt):
        return PlainModel(of_state(model, config, state), len(own))
    head, size = model.get_output_embeddings().weight, len(prompt) + len(own)
    tied = head.data_ptr() == own.data_ptr()
    if compact:
        shared = decoder = with_mean_rows(own, len(prompt))
        encoder = torch.cat([table, prompt.to(own)])
        head = shared if tied else with_mean_rows(head, len(prompt))
    else:
        shared = decoder = encoder = torch.cat([own, *([] if table is None else [table]), prompt.to(own)])
        size = len(shared)
        if getattr(config, "scale_decoder_outputs", False):  # a head of its own is not scaled (T5 1.1)
            head = head * model.config.d_model**-0.5
            config.scale_decoder_outputs = False
        head = with_mean_rows(head, size - len(own))
        config.tie_word_embeddings = False
    state |= {"shared.weight": shared, "lm_head.weight": head}
    state |= {"encoder.embed_tokens.weight": encoder, "decoder.embed_tokens.weight": decoder}
    config.vocab_size = size
    return PlainModel(of_state(model, config, state), size, 0 if compact or table is None else len(own))


def with_mean_rows(head: Tensor, count: int) -> Tensor:
    """[V + count, D]: the head's rows [V, D], then their mean as often as `count` says."""
    mean = head.float().mean(0, keepdim=True).to(head.dtype)
    return torch.cat([head, mean.expand(count, -1)])


def name_of(model: nn.Module, module: nn.Module | None) -> str:
    """The module's name in the model. Raises UserError where the model has no such module."""
    for name, other in model.named_modules():
        if other is module:
            return name
    raise UserError(f"{type(model).__name__} has no output head of the usual kind, so it has no plain form")


def of_state(model: PreTrainedModel, config, state: dict[str, Tensor]) -> PreTrainedModel:
    """A model of the same class, config and weights, whose modules are the class's own.

    Raises UserError where a method has added parameters to the model that the class does not have.
    """
    with torch.device("meta"):
        plain = type(model)(config)
    try:
        plain.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{type(model).__name__} has no place for what this method has put into it ({first_line(error, 300)}): "
            "no plain folder can hold it"
        ) from error
    return plain


@torch.no_grad()
def embedding_scale(embedding: nn.Embedding) -> float:
    """The factor between an embedding's rows and what it returns for their ids: 1, or sqrt(D) in some families."""
    ids = torch.arange(min(64, len(embedding.weight)), device=embedding.weight.device)
    rows, returned = embedding.weight[ids].double(), embedding(ids).double()
    scale = ((rows * returned).sum() / (rows * rows).sum()).item()
    return 1.0 if abs(scale - 1) < 1e-6 else scale


@torch.no_grad()
def add_to_positions(model: PreTrainedModel, rows: Tensor, first: int) -> None:
    """Adds rows [S, D] to the embeddings of the absolute positions from `first` on, in place.

    Raises UserError for a model whose positions are not looked up in a trained table.
    """
    if (positions := position_table(model)) is None:
        raise UserError(
            f"an offset by position becomes no part of {type(model).__name__}, whose positions have no trained table "
            "(GPT-2's have): neither a plain folder nor an embedding's LoRA can hold it"
        )
    count = min(len(rows), len(positions.weight) - first)
    positions.weight[first : first + count] += rows[:count].to(positions.weight)
