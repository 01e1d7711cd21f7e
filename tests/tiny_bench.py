"""The bench's models and profiles made tiny."""

import torch

from adept.bench.contestants import load_base_model, open_style_sessions
from adept.bench.profiles import PROFILES, Profile
from adept.models.families import SHAPES

TINY = {
    "t5-small": {
        "vocab_size": 40_000, "d_model": 128, "d_kv": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4,
        "dropout_rate": 0.0,
    },
    "codegen-350m": {
        "vocab_size": 40_000, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "resid_pdrop": 0.0,
    },
    "llama3-8b": {
        "vocab_size": 40_000, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip
"""Config fields that make a shape of SHAPES tiny."""


def shrink(monkeypatch):
    """Makes the models' shapes tiny, and the texts short and of little variety."""
    for name, changes in TINY.items():
        family, numbers = SHAPES[name]
        monkeypatch.setitem(SHAPES, name, (family, {**numbers, **changes}))
    fields = {"max_source_len": 24, "batch_size": 4, "prompt_len": 5, "max_target_len": 4}
    for name in ("rte", "sst2"):
        profile = Profile((4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 24), PROFILES[name].stands_for, fields=fields)
        monkeypatch.setitem(PROFILES, name, profile)
    monkeypatch.setattr("adept.bench.measure.validation_size", lambda _: 20)
    torch.manual_seed(0)


def open_sessions(name, *styles):
    """The first session of each style, on one model."""
    model, tokenizer = load_base_model(name, torch.device("cpu"))
    return [open_style_sessions(style, model, tokenizer, "rte", name, "cpu")[0] for style in styles]
