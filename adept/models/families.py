"""All knowledge of model families: names, shapes, module names, limits. No other file knows a family by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adept.base.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ALIASES = {
    "t5-small": "google-t5/t5-small",
    "t5-base": "google-t5/t5-base",
    "t5-3b": "google-t5/t5-3b",
    "codegen-350m": "Salesforce/codegen-350M-mono",
    "llama3-8b": "meta-llama/Meta-Llama-3-8B",
}
"""The paper's models (Appendix C) on the hub. `smollm2-135m` comes from the package index (adept/models/bundled.py)."""

BUNDLED = "smollm2-135m"
"""The model that needs no hub (adept/models/bundled.py)."""

BUNDLED_ORIGIN = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The hub's model of which a 4-bit file was converted to the bundled one."""

Shape = tuple[str, dict[str, Any]]
"""A family, as its classes in transformers begin, and those fields of its config that decide about shapes."""

T5_TOKENS = {"vocab_size": 32128, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
SHAPES: dict[str, Shape] = {
    "t5-small": ("T5", {**T5_TOKENS, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}),
    "t5-base": ("T5", {**T5_TOKENS, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
    "t5-3b": ("T5", {**T5_TOKENS, "d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 24, "num_heads": 32}),
    "codegen-350m": (
        "CodeGen",
        {"vocab_size": 51200, "n_embd": 1024, "n_layer": 20, "n_head": 16, "rotary_dim": 32, "n_positions": 2048},
    ),
    "llama3-8b": (
        "Llama",
        {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192,
         "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    ),
}  # fmt: skip
"""The shapes of the paper's models, for random models of their true size."""

TINY: dict[str, Shape] = {
    "tiny-t5": (
        "T5",
        {"vocab_size": 328, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.1,
         "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "initializer_factor": 1.0},
    ),
    "tiny-llama": (
        "Llama",
        {"vocab_size": 328, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
         "tie_word_embeddings": True, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
         "initializer_range": 0.3},
    ),
    "tiny-codegen": (
        "CodeGen",
        {"vocab_size": 328, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 512, "n_ctx": 512,
         "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "initializer_range": 0.3},
    ),
}  # fmt: skip
"""The shapes of the tiny random models (adept/models/tiny.py)."""


def build_random_model(shape: Shape) -> PreTrainedModel:
    """A model with random weights in fp32, drawn from torch's generator, on torch's default device."""
    import transformers

    family, fields = shape
    model_class = f"{family}ForConditionalGeneration" if family == "T5" else f"{family}ForCausalLM"
    return getattr(transformers, model_class)(getattr(transformers, f"{family}Config")(**fields))


def random_t5(folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Saves a one-layer T5 with random weights, always the same, and a tokenizer of another model into `folder`.

    It shows T5's attention where no trained T5 is available.
    """
    import torch

    torch.manual_seed(0)
    fields = {"vocab_size": len(tokenizer), "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 1, "num_heads": 4}
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = ("T5", {**fields, **special, "decoder_start_token_id": tokenizer.pad_token_id})
    build_random_model(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def has_t5_attention(model: PreTrainedModel) -> bool:
    """Whether adept/models/t5_attention.py applies to the model's attention."""
    return model.config.model_type == "t5"


MODEL_KINDS = ("encoder-decoder", "decoder-only")
"""What model_kind() can say."""


def model_kind(model: PreTrainedModel) -> str:
    """Which of MODEL_KINDS the model is."""
    return MODEL_KINDS[0] if model.config.is_encoder_decoder else MODEL_KINDS[1]


def input_embedding_owner(model: PreTrainedModel) -> PreTrainedModel:
    """The module whose input embedding the source passes through: T5's encoder, else the model.

    Raises UserError for an encoder whose embedding cannot be replaced.
    """
    owner = model.get_encoder() if model.config.is_encoder_decoder else model
    if not hasattr(owner, "get_input_embeddings"):
        raise UserError(
            f"{type(model).__name__} does not let its input embedding be replaced; --model takes, for example, T5, "
            "BART, mBART, M2M100, Marian or Pegasus"
        )
    return owner


def table_rows(model: PreTrainedModel) -> tuple[int, int]:
    """Rows of the embedding tables that the source and the target address."""
    reader = input_embedding_owner(model)
    writer = model.get_decoder() if model.config.is_encoder_decoder else reader
    source, target = (len(owner.get_input_embeddings().weight) for owner in (reader, writer))
    return source, target


ATTENTION_PROJECTIONS = (
    ["qkv_proj"],
    ["q_proj", "k_proj", "v_proj"],
    ["q", "v"],
    ["c_attn"],
    ["query_key_value"],
    ["query_proj", "key_proj", "value_proj"],
    ["query", "key", "value"],
    ["Wq", "Wk", "Wv"],
    ["Wqkv"],
)
"""Names of the modules that make queries, keys and values, by family."""


def attention_projections(model: PreTrainedModel) -> list[str]:
    """Names of the modules that LoRA adapts. Raises UserError for a model without any that are known.

    With this choice LoRA has the paper's parameter counts: T5-3B 25.8M, CodeGen 1.3M, Llama3 9.4M.
    """
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    for projections in ATTENTION_PROJECTIONS:
        if names.issuperset(projections):
            return projections
    raise UserError(
        f"LoRA finds no attention projections that it knows in {type(model).__name__}; --method adept, dept, pt and "
        "full need none, or add its module names to ATTENTION_PROJECTIONS in adept/models/families.py"
    )


KEY_PROJECTIONS = ("k_proj", "key_proj", "key", "Wk")
"""Those of ATTENTION_PROJECTIONS that make keys alone."""


def query_value_projections(model: PreTrainedModel) -> list[str]:
    """attention_projections() without those that make keys alone. Raises UserError as it does."""
    return [name for name in attention_projections(model) if name not in KEY_PROJECTIONS]


class BlockNames(NamedTuple):
    """Names of linears within a transformer block, as regexes."""

    keys_values: str
    """Those that make the keys and values of any attention."""
    attention_output: str
    """The last one of the self-attention."""
    feed_forward_output: str
    """The last one of the feed-forward network."""


BLOCK_NAMES = (
    BlockNames(r"layer\.\d\.\w+Attention\.[kv]", r"layer\.0\.SelfAttention\.o", r"layer\.\d\.DenseReluDense\.wo"),  # T5
    BlockNames(r"(self|cross)_attn\.[kv]_proj", r"self_attn\.o_proj", r"mlp\.(down|c)_proj"),  # Llama, Starcoder2
    BlockNames(r"self_attn\.qkv_proj", r"self_attn\.o_proj", r"mlp\.down_proj"),  # Phi3
    BlockNames(r"self_attn\.[kv]_proj", r"self_attn\.dense", r"mlp\.fc2"),  # Phi
    BlockNames(r"(self|encoder)_attn\.[kv]_proj", r"self_attn\.out_proj", r"fc2"),  # BART, OPT
    BlockNames(r"attn\.(qkv|[kv])_proj", r"attn\.out_proj", r"mlp\.fc_out"),  # CodeGen, GPT-J
    BlockNames(r"attn\.c_attn", r"attn\.c_proj", r"mlp\.c_proj"),  # GPT-2
    BlockNames(r"\w+\.query_key_value", r"\w+\.dense", r"mlp\.dense_4h_to_h"),  # GPT-NeoX, Bloom, Falcon
)
"""By family. Fused projections make the queries, too."""


class Block(NamedTuple):
    """A transformer block, with the full names of some of its linears (BlockNames)."""

    name: str
    number: int
    """Its place in its stack, from 0."""
    in_encoder: bool
    keys_values: list[str]
    attention_output: str
    feed_forward_output: str


def named_blocks(model: PreTrainedModel) -> list[Block]:
    """The transformer blocks in order; of an encoder-decoder, the encoder's before the decoder's.

    Raises UserError for a model whose blocks have other modules than BLOCK_NAMES knows, such as experts.
    """
    from adept.models.recompute import transformer_blocks

    blocks, found = set(transformer_blocks(model)), []
    encoder = set(model.get_encoder().modules()) if model.config.is_encoder_decoder else set()
    for name, block in model.named_modules():
        if block in blocks:
            inside = [inner for inner, _ in block.named_modules()]
            matches = ([[n for n in inside if re.fullmatch(regex, n)] for regex in names] for names in BLOCK_NAMES)
            match = next((m for m in matches if m[0] and len(m[1]) == len(m[2]) == 1), None)
            if match is None:
                break
            keys_values, attention, feed_forward = [[f"{name}.{n}" for n in some] for some in match]
            number = int(name.rsplit(".", 1)[-1])
            found.append(Block(name, number, block in encoder, keys_values, *attention, *feed_forward))
    if not blocks or len(found) < len(blocks):
        raise UserError(
            f"{type(model).__name__} has blocks without one attention and one feed-forward network that this method "
            "knows; --method lora, adept, dept, pt and full need none, or add its module names to BLOCK_NAMES in "
            "adept/models/families.py"
        )
    return found


def norm_names(model: PreTrainedModel) -> list[str]:
    """Names of the normalisation layers that have weights. Raises UserError for a model without any."""
    norms = [
        name
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and any(True for _ in module.parameters(recurse=False))
    ]
    if not norms:
        raise UserError(f"{type(model).__name__} has no normalisation layers with weights to train")
    return norms


SHARED_TABLE = ("t5", "mt5", "longt5")
"""Encoder-decoders whose sides read one table, `shared`, and whose head may have a file entry of its own."""


def position_table(model: PreTrainedModel) -> nn.Embedding | None:
    """The trained table of a causal model's absolute positions, which begin at 0 (GPT-2); None where there is none."""
    return getattr(model.base_model, "wpe", None)


def peft_task_type(model: PreTrainedModel) -> str:
    """What PEFT calls the model's kind of task."""
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def forward_flops(config: PretrainedConfig, source: int, target: int, shared: int = 0) -> tuple[float, float]:
    """FLOP of one row's forward pass: (of products with weights, of products in attention).

    A multiplication and an addition count as two. source: number of tokens, prompt included. target: number of tokens
    with logits. shared: number of tokens at the row's beginning that are computed once for a batch and are not counted.
    T5's cross-attention is counted in the order of ShortTargetCrossAttention; of causal attention only the tokens that
    a query sees are counted.
    """
    if config.is_encoder_decoder:
        width, inner, heads = config.d_model, config.num_heads * config.d_kv, config.num_heads
        feed_forward = (3 if config.is_gated_act else 2) * width * config.d_ff
        encoder = source * (4 * width * inner + feed_forward)
        decoder = target * (8 * width * inner + feed_forward)
        weights = config.num_layers * encoder + config.num_decoder_layers * decoder + target * width * config.vocab_size
        attention = config.num_layers * source**2 * inner + config.num_decoder_layers * target * (
            target * inner + source * heads * width
        )
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
