"""Loads a pretrained model and its tokenizer. The only file that knows model families."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

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
TINY = ("tiny-t5", "tiny-llama", "tiny-codegen")
"""Random models that adept/tiny.py makes."""

DROPOUT_FIELDS = ("dropout_rate", "attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop")
"""Names of dropout rates in the configs of T5, Llama-type and CodeGen-type models."""


def locate(name: str) -> str:
    """A local folder or a hub id. Fetches the bundled model, or makes a tiny one, on first use."""
    if name == BUNDLED:
        from adept.bundled import model_folder

        return str(model_folder())
    if name in TINY:
        from adept.tiny import model_folder

        return str(model_folder(name))
    return ALIASES.get(name, name)


def load(config: RunConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pretrained model in fp32, every parameter frozen, and its tokenizer.

    Raises UserError in one line when neither a local folder nor the hub has it.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # the run has one of its own
    where = locate(config.model)
    try:
        model_config = transformers.AutoConfig.from_pretrained(where, revision=config.model_revision)
        overrides = {
            name: config.model_dropout for name in DROPOUT_FIELDS if hasattr(model_config, name) and config.model_dropout is not None
        }
        kind = transformers.AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else transformers.AutoModelForCausalLM
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, revision=config.model_revision)
        model = kind.from_pretrained(where, revision=config.model_revision, dtype=torch.float32, **overrides)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model '{config.model}' not found: looked for a folder {Path(config.model)}, "
            f"and for '{where}' in the hub's cache and on the hub ({first_line(error)}). "
            f"Offline, --model {BUNDLED} comes from the package index, and --model takes a local folder"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks come from lengths, so any id will do
    return model.requires_grad_(False), tokenizer


def input_embedding_owner(model: PreTrainedModel):
    """The module whose input embedding the source passes through: T5's encoder, else the model."""
    return model.get_encoder() if model.config.is_encoder_decoder else model


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
    """Writes a one-layer T5 with random weights and another model's tokenizer, to look at T5's attention where no T5 is at hand."""
    import transformers

    torch.manual_seed(0)
    shape = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4,
        decoder_start_token_id=tokenizer.pad_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    transformers.T5ForConditionalGeneration(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
