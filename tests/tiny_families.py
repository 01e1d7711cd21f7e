"""Tiny random models of many families, built from transformers' own config classes."""

from __future__ import annotations

import torch
import transformers

ROWS = 328
"""Rows of every embedding table."""

COMMON = {"vocab_size": ROWS, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "initializer_range": 0.3}  # fmt: skip
NO_HEAD_DIM = {key: value for key, value in LLAMA.items() if key != "head_dim"}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
        "init_std": 0.3, "decoder_start_token_id": 3}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
HYBRID = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_heads": 8, "mamba_d_head": 8,
          "mamba_n_groups": 1, "mamba_chunk_size": 8}  # fmt: skip
SLIDING = {"sliding_window": 8}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
          "layer_types": ["linear_attention", "full_attention"]}  # fmt: skip

CAUSAL: dict[str, dict] = {
    "Llama": LLAMA,
    "Mistral": {**LLAMA, **SLIDING},
    "Mixtral": {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2": LLAMA,
    "Qwen3": LLAMA,
    "Qwen2Moe": {**LLAMA, **MOE, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1},
    "Gemma": LLAMA,
    "Gemma2": {**LLAMA, **SLIDING},
    "Gemma3Text": {**LLAMA, **SLIDING, "layer_types": ["sliding_attention", "full_attention"]},
    "Phi": LLAMA,
    "Phi3": {**LLAMA, **SLIDING},
    "Olmo": LLAMA,
    "Olmo2": LLAMA,
    "Granite": LLAMA,
    "Cohere": LLAMA,
    "StableLm": LLAMA,
    "Starcoder2": LLAMA,
    "Nemotron": LLAMA,
    "SmolLM3": LLAMA,
    "Persimmon": NO_HEAD_DIM,
    "GPT2": GPT2,
    "GPTBigCode": GPT2,
    "GPTJ": {**GPT2, "rotary_dim": 4},
    "CodeGen": {**GPT2, "rotary_dim": 4},
    "GPTNeo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64, "window_size": 8,
               "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 128, "initializer_range": 0.3},
    "GPTNeoX": LLAMA,
    "OPT": {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": 128, "word_embed_proj_dim": 32, "init_std": 0.3},
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
    "Mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128, "expansion_ratio": 2,
            "initializer_range": 0.3},
    "Falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False,
               "initializer_range": 0.3},
    "BioGpt": {**LLAMA},
    "XGLM": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 128,
             "init_std": 0.3},
    "OpenAIGPT": GPT2,
    "CTRL": {**GPT2, "dff": 64},
    "Mamba": {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "initializer_range": 0.3},
    "Mamba2": {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8,
               "n_groups": 1, "chunk_size": 8, "initializer_range": 0.3},
    "RecurrentGemma": {**LLAMA, "num_hidden_layers": 3, "attention_window_size": 64, "lru_width": 32},
    "Lfm2": {**LLAMA, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "Qwen3Next": {**LLAMA, **MOE, **LINEAR, "shared_expert_intermediate_size": 32, "initializer_range": 0.1},
    "GraniteMoeHybrid": {**LLAMA, **HYBRID, "num_local_experts": 4, "num_experts_per_tok": 2,
                         "shared_intermediate_size": 32, "layer_types": ["mamba", "attention"]},
    "Bamba": {**LLAMA, **HYBRID, "attn_layer_indices": [1], "attn_rotary_emb": 4},
    "Jamba": {**LLAMA, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8,
              "mamba_dt_rank": 4, "use_mamba_kernels": False},
    "FalconH1": {**LLAMA, **HYBRID, "mamba_d_ssm": 64},
    "Rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "context_length": 128, "attention_hidden_size": 32},
    "Gemma3nText": {**LLAMA, "num_hidden_layers": 4, "vocab_size_per_layer_input": ROWS,
                    "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2, "laurel_rank": 4,
                    "intermediate_size": [64] * 4, "activation_sparsity_pattern": [0.0] * 4, "sliding_window": 8,
                    "layer_types": ["sliding_attention", "full_attention"] * 2},
    "DeepseekV3": {**NO_HEAD_DIM, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
                   "num_key_value_heads": 4, "v_head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
                   "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1},
    "Llama4Text": {**LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 64,
                   "attention_chunk_size": 8, "moe_layers": [1]},
    "GptOss": {**LLAMA, **SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
    "RoFormer": {**LLAMA, "is_decoder": True},
    "Gemma4Text": {**LLAMA, **SLIDING, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": ROWS,
                   "layer_types": ["sliding_attention", "full_attention"], "global_head_dim": 8},
    "MiniCPM3": {**NO_HEAD_DIM, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
                 "num_key_value_heads": 4},
}  # fmt: skip

SEQ2SEQ: dict[str, dict] = {
    "T5": T5,
    "MT5": T5,
    "UMT5": T5,
    "LongT5": {**T5, "local_radius": 4},
    "SwitchTransformers": {**T5, "num_decoder_layers": 2,
                           "num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    "Bart": BART,
    "MBart": {**BART, "scale_embedding": True},
    "M2M100": {**BART, "scale_embedding": True},
    "NllbMoe": {**BART, "num_experts": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "Pegasus": BART,
    "PegasusX": {**BART, "block_size": 8, "num_global_tokens": 4},
    "Marian": {**BART, "scale_embedding": True, "decoder_start_token_id": 0},
    "Blenderbot": BART,
    "BlenderbotSmall": BART,
    "PLBart": {**BART, "scale_embedding": True},
    "Mvp": BART,
    "LED": {**{k: v for k, v in BART.items() if k != "max_position_embeddings"}, "attention_window": 8,
            "max_encoder_position_embeddings": 128, "max_decoder_position_embeddings": 128},
    "BigBirdPegasus": {**BART, "attention_type": "original_full"},
    "ProphetNet": {"hidden_size": 32, "num_encoder_layers": 2, "num_decoder_layers": 2,
                   "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4,
                   "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
                   "decoder_start_token_id": 3, "init_std": 0.3},
    "T5Gemma": {},
}  # fmt: skip


def nested_t5gemma() -> transformers.PretrainedConfig:
    side = {**COMMON, **LLAMA, **SLIDING, "layer_types": ["sliding_attention", "full_attention"]}
    module = {"encoder": {**side, "is_decoder": False}, "decoder": {**side, "cross_attention_hidden_size": 32}}
    return transformers.T5GemmaConfig(**module, vocab_size=ROWS, pad_token_id=0, eos_token_id=1, bos_token_id=2)


def build(family: str, config: transformers.PretrainedConfig | None = None, **changes) -> transformers.PreTrainedModel:
    """A tiny random model of that family in eval mode, always the same. changes: other values of config fields."""
    seq2seq = family in SEQ2SEQ
    fields = {**COMMON, **(SEQ2SEQ[family] if seq2seq else CAUSAL[family]), **changes}
    if config is None and family == "T5Gemma":
        config = nested_t5gemma()
    elif config is None:
        config = getattr(transformers, f"{family}Config")(**fields)
    torch.manual_seed(0)
    kind = transformers.AutoModelForSeq2SeqLM if seq2seq else transformers.AutoModelForCausalLM
    return kind.from_config(config).eval()
