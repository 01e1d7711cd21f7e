"""Loads a pretrained model and its tokenizer, and makes random ones of the same shapes."""

from __future__ import annotations

import copy
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adept.base.errors import UserError, first_line
from adept.models.bundled import smollm2_folder
from adept.models.dropout import check_dropout, patch_dropout, set_config_dropout
from adept.models.families import (
    ALIASES,
    BUNDLED,
    BUNDLED_ORIGIN,
    SHAPES,
    TINY,
    build_random_model,
    has_t5_attention,
    input_embedding_owner,
)
from adept.models.tiny import tiny_model_folder

SAMPLES = 64
"""The elements of a parameter that weights_digest() reads, about."""

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def locate(name: str) -> str:
    """The local folder or the hub id of a model. Fetches the bundled model, or makes a tiny one, on first use."""
    if name == BUNDLED:
        return str(smollm2_folder())
    if name in TINY:
        return str(tiny_model_folder(name))
    return ALIASES.get(name, name)


def hub_model(name: str) -> str | None:
    """The hub id of a model, of the bundled one that of its origin; None for a local folder and a tiny model."""
    if name in TINY or os.path.isdir(name):
        return None
    return BUNDLED_ORIGIN if name == BUNDLED else ALIASES.get(name, name)


def pipeline_tag(name: str) -> str | None:
    """What the hub calls the work of models like this: text to text, or text that goes on.

    None where the model's config cannot be read.
    """
    import transformers

    known = {own: family for own, (family, _) in {**SHAPES, **TINY}.items()} | {BUNDLED: "Llama"}  # without a hub
    try:
        if name in known:
            config = getattr(transformers, f"{known[name]}Config")()
        else:
            config = transformers.AutoConfig.from_pretrained(locate(name), trust_remote_code=False)
    except Exception:  # what the libraries raise has no base of its own
        return None
    return "text2text-generation" if config.is_encoder_decoder else "text-generation"


def load_model(
    name: str, *, revision: str | None = None, precision: str = "fp32", dropout: float | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a pretrained model, freezes every parameter, and loads its tokenizer.

    name: an alias, a hub id or a local folder. dropout: the rate inside the model; None: that of the model's config.
    The weights are fp32, so that trained parameters start unrounded. With precision "bf16", a model that is stored in
    bf16 is loaded in bf16: that loses nothing and halves the host's memory. Buffers such as rotary frequencies are
    always fp32.
    Raises UserError if neither a local folder nor the hub has the model, if its files are damaged or do not fit each
    other, and if the model brings code of its own.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # the run has one of its own
    where = locate(name)
    try:
        # Without an explicit False, transformers asks on standard input whether to run the model's own code, and a "y"
        # that was meant for something else would permit it.
        source = {"pretrained_model_name_or_path": where, "revision": revision, "trust_remote_code": False}
        model_config = transformers.AutoConfig.from_pretrained(**source)
        if dropout is not None:
            set_config_dropout(model_config, dropout)
        load_in_bf16 = precision == "bf16" and model_config.dtype == torch.bfloat16
        kind = (
            transformers.AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else transformers.AutoModelForCausalLM
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        model = kind.from_pretrained(
            **source, config=model_config, dtype=torch.bfloat16 if load_in_bf16 else torch.float32
        )
    except Exception as error:  # what the libraries raise for damaged files has no base of its own
        if os.path.isdir(where):
            raise UserError(
                f"model folder {where} cannot be loaded: {first_line(error)}; "
                "it must hold what save_pretrained of a transformers model and its tokenizer writes"
            ) from error
        raise UserError(
            f"model '{name}' not found: looked for a folder {Path(name)}, "
            f"and for '{where}' in the hub's cache and on the hub ({first_line(error)}). "
            f"Offline, --model {BUNDLED} comes from the package index, and --model takes a local folder"
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of model '{name}' has no end-of-sequence token, with which every target ends")
    rows = input_embedding_owner(model).get_input_embeddings().weight.shape[0]
    if tokenizer.eos_token_id >= rows:
        raise UserError(
            f"model '{name}': its tokenizer's end-of-sequence token {tokenizer.eos_token!r} has the id "
            f"{tokenizer.eos_token_id:,}, but its embedding only {rows:,} rows"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.eos_token  # any id will do: masks come from lengths
    if dropout is not None:
        check_dropout(model, dropout)
    return patch_attention_and_dropout(model.requires_grad_(False)), tokenizer


def cached_commit(name: str, revision: str | None = None) -> str | None:
    """The hub's commit of a model that is loaded without a network; None for a folder, and where none is cached."""
    import huggingface_hub

    where = locate(name)
    if os.path.isdir(where):
        return None
    path = huggingface_hub.try_to_load_from_cache(where, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


@torch.no_grad()
def weights_digest(model: nn.Module) -> str | None:
    """A digest of shapes and samples of all parameters: equal for equal weights, whatever their file or type is.

    None for a model without weights (on the meta device).
    """
    digest = hashlib.sha256()
    for parameter in model.parameters():
        if parameter.is_meta:
            return None
        stride = max(1, parameter.numel() // SAMPLES)
        samples = parameter.detach().flatten()[::stride].float().cpu()
        digest.update(f"{tuple(parameter.shape)}".encode() + samples.numpy().tobytes())
    return digest.hexdigest()[:16]


def random_model(name: str, device: torch.device | str = "cpu", **changes) -> PreTrainedModel:
    """A model of the shape SHAPES[name] with random frozen weights in fp32. changes: other values of config fields."""
    family, fields = SHAPES[name]
    with torch.device(device):
        return build_random_model((family, {**fields, **changes})).requires_grad_(False)


def shape_only_model(name: str) -> PreTrainedModel:
    """A model of the true shape on the meta device, without weights; every parameter is frozen.

    name: one of SHAPES, or what load_model() takes, of which only the config is read.
    Raises UserError for an unknown model.
    """
    import transformers

    if name in SHAPES:
        return random_model(name, "meta")
    try:
        config = transformers.AutoConfig.from_pretrained(locate(name), trust_remote_code=False)
    except Exception as error:  # what the libraries raise for damaged files has no base of its own
        raise UserError(
            f"model '{name}' not found: {first_line(error)}; known without a hub: {', '.join([*SHAPES, BUNDLED])}"
        ) from error
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    return model.requires_grad_(False)


def copy_sharing_parameters(model: nn.Module) -> nn.Module:
    """A copy of the model with modules of its own, which share the parameters of the original."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def patch_attention_and_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Replaces the arithmetic of every dropout and of T5's attention by cheaper ones, in place.

    They are those of adept/models/dropout.py and adept/models/t5_attention.py. Names and parameters stay.
    """
    patch_dropout(model)
    if has_t5_attention(model):
        from adept.models.t5_attention import patch_attention  # imports transformers' T5

        patch_attention(model)
    return model


@torch.no_grad()
def first_layer_attention(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """[B, H, T, T]: the self-attention weights of the model's first layer for ids [B, T] without padding."""
    reader, implementation = input_embedding_owner(model), model.config._attn_implementation
    extra = {} if model.config.is_encoder_decoder else {"use_cache": False, "logits_to_keep": 1}
    model.set_attn_implementation("eager")  # the other implementations do not return their weights
    try:
        return reader(input_ids=ids, output_attentions=True, **extra).attentions[0]
    finally:
        model.set_attn_implementation(implementation)
