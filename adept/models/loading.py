"""Loads a pretrained model and its tokenizer, and makes random ones of the same shapes."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adept.base.errors import UserError, first_line
from adept.models.bundled import smollm2_folder
from adept.models.dropout import FastMaskDropout
from adept.models.families import ALIASES, BUNDLED, DROPOUT_FIELDS, SHAPES, TINY, input_embedding_owner
from adept.models.tiny import tiny_model_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def locate(name: str) -> str:
    """A local folder or a hub id. Fetches the bundled model, or makes a tiny one, on first use."""
    if name == BUNDLED:
        return str(smollm2_folder())
    if name in TINY:
        return str(tiny_model_folder(name))
    return ALIASES.get(name, name)


def load_model(
    name: str, *, revision: str | None = None, precision: str = "fp32", dropout: float | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pretrained model, every parameter frozen, and its tokenizer.

    name: an alias, a hub id or a local folder. dropout: inside the model; None: as its own config says. The weights are
    fp32, so that trained parameters start unrounded. With precision "bf16" they are bf16 where the model is stored in
    bf16, which loses nothing and halves the host's memory. Buffers such as rotary frequencies are fp32 in both. Raises
    UserError in one line when neither a local folder nor the hub has it, when its files are damaged or do not fit each
    other, and when it comes with code of its own.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # the run has one of its own
    where = locate(name)
    try:
        # False, not left out: transformers would ask on standard input, where a "y" meant for something else runs a
        # stranger's code.
        source = {"pretrained_model_name_or_path": where, "revision": revision, "trust_remote_code": False}
        model_config = transformers.AutoConfig.from_pretrained(**source)
        fields = [field for field in DROPOUT_FIELDS if hasattr(model_config, field)] if dropout is not None else []
        stored_as_run = precision == "bf16" and model_config.dtype == torch.bfloat16
        kind = (
            transformers.AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else transformers.AutoModelForCausalLM
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        model = kind.from_pretrained(
            **source, dtype=torch.bfloat16 if stored_as_run else torch.float32, **dict.fromkeys(fields, dropout)
        )
    except Exception as error:  # what the libraries raise for damaged files has no base of its own
        if os.path.isdir(where):
            raise UserError(
                f"model folder {where} cannot be loaded: {first_line(error)}; it must hold what save_pretrained of a transformers model "
                "and its tokenizer writes"
            ) from error
        raise UserError(
            f"model '{name}' not found: looked for a folder {Path(name)}, "
            f"and for '{where}' in the hub's cache and on the hub ({first_line(error)}). "
            f"Offline, --model {BUNDLED} comes from the package index, and --model takes a local folder"
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of model '{name}' has no end-of-sequence token, with which every target ends")
    if len(tokenizer) > (
        rows := model.get_input_embeddings().num_embeddings
    ):  # ids beyond the vocabulary are the prompt's
        raise UserError(
            f"model '{name}': its tokenizer has {len(tokenizer):,} tokens, but its embedding only {rows:,} rows"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks come from lengths, so any id will do
    return patch_attention_and_dropout(model.requires_grad_(False)), tokenizer


def random_model(name: str, device: torch.device | str = "cpu", **changes) -> PreTrainedModel:
    """A model of the shape SHAPES[name] in fp32 with random frozen weights. changes: config fields, for smaller ones in
    tests.
    """
    import transformers

    family, numbers = SHAPES[name]
    kind = {"T5": "T5ForConditionalGeneration"}.get(family, f"{family}ForCausalLM")
    with torch.device(device):
        model = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**{**numbers, **changes}))
    return model.requires_grad_(False)


def shape_only_model(name: str) -> PreTrainedModel:
    """A model of the true shape on the meta device, without weights; every parameter is frozen.

    name: one of SHAPES, or what load_model() takes; of the latter only the config is read. Raises UserError for an
    unknown model.
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
    """The model again, with modules of its own and the same parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def patch_attention_and_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Gives T5's attention the arithmetic of adept/models/t5_attention.py and every dropout that of
    adept/models/dropout.py, in place.

    Names and parameters stay.
    """
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = FastMaskDropout
    if model.config.model_type == "t5":
        from adept.models.t5_attention import MaskedBiasAttention, ShortTargetCrossAttention

        for block in model.get_encoder().block:
            block.layer[0].SelfAttention.__class__ = MaskedBiasAttention
        for block in model.get_decoder().block:
            block.layer[1].EncDecAttention.__class__ = ShortTargetCrossAttention
    return model


@torch.no_grad()
def first_layer_attention(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """ids [B, T], no padding -> the model's own self-attention in the first layer that they pass through, [B, H, T, T]."""
    source, implementation = input_embedding_owner(model), model.config._attn_implementation
    extra = {} if model.config.is_encoder_decoder else {"use_cache": False, "logits_to_keep": 1}
    model.set_attn_implementation("eager")  # the others do not keep their weights
    try:
        return source(input_ids=ids, output_attentions=True, **extra).attentions[0]
    finally:
        model.set_attn_implementation(implementation)


def random_t5(folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes a one-layer T5 with random weights and another model's tokenizer, to look at T5's attention where no T5 is
    at hand.
    """
    import transformers

    torch.manual_seed(0)
    shape = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4,
        decoder_start_token_id=tokenizer.pad_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformers.T5ForConditionalGeneration(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
