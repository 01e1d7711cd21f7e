"""Loads a pretrained model and its tokenizer. The only file that knows model families."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adept.config import RunConfig, UserError, first_line
from adept.dropout import SpareDropout

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

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


T5_TOKENS = {"vocab_size": 32128, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
SHAPES: dict[str, tuple[str, dict]] = {
    "t5-small": ("T5", {**T5_TOKENS, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}),
    "t5-base": ("T5", {**T5_TOKENS, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
    "t5-3b": ("T5", {**T5_TOKENS, "d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 24, "num_heads": 32}),
    "codegen-350m": ("CodeGen", {"vocab_size": 51200, "n_embd": 1024, "n_layer": 20, "n_head": 16, "rotary_dim": 32, "n_positions": 2048}),
    "llama3-8b": (
        "Llama",
        {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    ),
}  # fmt: skip
"""Model names to their family and the numbers of their config that decide about shapes: what a timing needs, without their weights."""


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
    """The pretrained model, every parameter frozen, and its tokenizer.

    In fp32, so that trained parameters start unrounded; for --precision bf16 in bf16 where it is stored in that, which loses nothing and
    halves the host's memory. Buffers such as rotary frequencies are fp32 in both.
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
        stored_as_run = config.precision == "bf16" and model_config.dtype == torch.bfloat16
        kind = transformers.AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else transformers.AutoModelForCausalLM
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        model = kind.from_pretrained(**source, dtype=torch.bfloat16 if stored_as_run else torch.float32, **overrides)
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
    return spare(model.requires_grad_(False)), tokenizer


def random_model(name: str, device: torch.device | str = "cpu", **changes) -> PreTrainedModel:
    """A model of the shape SHAPES[name] in fp32 with random frozen weights. changes: config fields, for smaller ones in tests."""
    import transformers

    family, numbers = SHAPES[name]
    kind = {"T5": "T5ForConditionalGeneration"}.get(family, f"{family}ForCausalLM")
    with torch.device(device):
        model = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**{**numbers, **changes}))
    return model.requires_grad_(False)


def forward_flops(config: PretrainedConfig, source: int, target: int, shared: int = 0) -> tuple[float, float]:
    """FLOP of one row's forward pass in (products with weights, products of attention), a multiplication and an addition being two.

    source: tokens with the prompt; target: tokens with logits. shared: tokens at the row's beginning that are computed once for a batch
    and not counted. T5's cross-attention is counted in the order for short targets, a causal one's attention over what it sees.
    """
    if config.is_encoder_decoder:
        width, inner, heads = config.d_model, config.num_heads * config.d_kv, config.num_heads
        feed_forward = (3 if config.is_gated_act else 2) * width * config.d_ff
        encoder = source * (4 * width * inner + feed_forward)
        decoder = target * (8 * width * inner + feed_forward)
        weights = config.num_layers * encoder + config.num_decoder_layers * decoder + target * width * config.vocab_size
        attention = config.num_layers * source**2 * inner + config.num_decoder_layers * target * (target * inner + source * heads * width)
        return 2.0 * weights, 4.0 * attention
    width, layers, tokens = config.hidden_size, config.num_hidden_layers, source + target - 1
    if config.model_type == "codegen":
        inner, block = width, 4 * width**2 + 2 * width * (config.n_inner or 4 * width)
    else:
        inner = config.num_attention_heads * config.head_dim
        grouped = config.num_key_value_heads * config.head_dim
        block = 2 * width * (inner + grouped) + 3 * width * config.intermediate_size
    weights = (tokens - shared) * layers * block + target * width * config.vocab_size
    seen = (tokens * (tokens + 1) - shared * (shared + 1)) / 2
    return 2.0 * weights, 4.0 * layers * seen * inner


def light_copy(model: nn.Module) -> nn.Module:
    """The model again, with modules of its own and the same parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def spare(model: PreTrainedModel) -> PreTrainedModel:
    """Gives T5's attention the arithmetic of adept/attention.py and every dropout that of adept/dropout.py, in place.

    Names and parameters stay.
    """
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = SpareDropout
    if model.config.model_type == "t5":
        from adept.attention import MaskedBiasAttention, ShortTargetCrossAttention

        for block in model.get_encoder().block:
            block.layer[0].SelfAttention.__class__ = MaskedBiasAttention
        for block in model.get_decoder().block:
            block.layer[1].EncDecAttention.__class__ = ShortTargetCrossAttention
    return model


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
