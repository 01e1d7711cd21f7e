"""The methods that PEFT carries out, beside a plain PEFT model with the same weights."""

import re

import peft
import pytest
import torch
from conftest import FAMILIES
from explicit_formulas import examples, filled_session

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.methods import METHODS
from adept.models.loading import load_model
from adept.runs.adapter import read_weights
from adept.training.loop import run
from adept.training.session import open_session

METHODS_OF_PEFT = ("lora", "dora", "vera", "ia3", "ln_tuning")
QUERIES_VALUES = {"t5": ["q", "v"], "llama": ["q_proj", "v_proj"], "codegen": ["qkv_proj"]}
ATTENTION = {**QUERIES_VALUES, "llama": ["q_proj", "k_proj", "v_proj"]}
SCALED = {
    "t5": (["k", "v", "wo"], ["wo"]),
    "llama": (["k_proj", "v_proj", "down_proj"], ["down_proj"]),
    "codegen": (["qkv_proj", "fc_out"], ["fc_out"]),
}
NORMS = {
    "t5": ["layer_norm", "final_layer_norm"],
    "llama": ["input_layernorm", "post_attention_layernorm", "norm"],
    "codegen": ["ln_1", "ln_f"],
}


def peft_config(method: str, family: str) -> peft.PeftConfig:
    """What a user of PEFT would write for the options of SIZES."""
    keys, feed_forward = SCALED[family]
    return {
        "lora": peft.LoraConfig(r=2, lora_alpha=32, lora_dropout=0.1, target_modules=ATTENTION[family]),
        "dora": peft.LoraConfig(r=2, lora_alpha=32, lora_dropout=0.1, target_modules=ATTENTION[family], use_dora=True),
        "vera": peft.VeraConfig(r=4, target_modules=QUERIES_VALUES[family]),
        "ia3": peft.IA3Config(target_modules=keys, feedforward_modules=feed_forward),
        "ln_tuning": peft.LNTuningConfig(target_modules=NORMS[family]),
    }[method]


@pytest.mark.filterwarnings("ignore:::peft")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS_OF_PEFT)
def test_the_loss_is_that_of_pefts_own_tuner_with_the_same_weights(make_config, method, family):
    session = filled_session(make_config, family, method)
    theirs = peft.get_peft_model(load_model(session.config.model)[0], peft_config(method, family)).eval()
    weights = {name: p.detach() for name, p in session.trainables.items()}
    assert {name for name, p in theirs.named_parameters() if p.requires_grad} == set(weights)
    theirs.load_state_dict(weights, strict=False)
    batch = session.codec.train_batch(examples(session))
    torch.testing.assert_close(session.model(**batch).loss, theirs(**batch).loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS_OF_PEFT)
def test_training_starts_at_the_model(make_config, method, family):
    plain, adapted = (open_session(make_config(family, name)) for name in ("zero_shot", method))
    batch = plain.codec.train_batch(examples(plain))
    losses = [session.model.eval()(**batch).loss for session in (plain, adapted)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [*METHODS_OF_PEFT, "lora_bias"])
def test_no_warning_of_other_libraries_is_printed(make_config, recwarn, method):
    for family in FAMILIES:
        open_session(
            make_config(family, "lora", lora_bias="all") if method == "lora_bias" else make_config(family, method)
        )
    assert not [str(warning.message) for warning in recwarn if "peft" in warning.filename]


# VeRA -----------------------------------------------------------------------------------------------------------------


def projections(session) -> list[torch.Tensor]:
    return [buffer for name, buffer in session.model.named_buffers() if re.search(r"vera_[AB]", name)]


def test_veras_random_matrices_are_drawn_from_their_seed_alone_and_not_saved(make_config, tmp_path):
    one, other_run, other = (
        projections(open_session(make_config("llama", "vera", **fields)))
        for fields in ({"seed": 1}, {"seed": 2}, {"projection_seed": 1})
    )
    assert len(one) == 2 and all(torch.equal(*pair) for pair in zip(one, other_run, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(one, other, strict=True))
    record = run(make_config("llama", "vera", steps=1))
    saved = read_weights(tmp_path / "results" / "runs" / record["run_id"])
    assert saved and all(".vera_lambda_" in name for name in saved)


# (IA)3 ----------------------------------------------------------------------------------------------------------------


def test_ia3_of_the_encoder_leaves_the_decoder_alone(make_config):
    session = open_session(make_config("t5", "ia3", where="encoder"))
    assert len(session.trainables) == 2 * 3
    assert all(".encoder.block." in name for name in session.trainables)


def test_a_model_without_an_encoder_is_one_line(make_config):
    with pytest.raises(UserError, match=r"^--where encoder: LlamaForCausalLM has no encoder; --where all$"):
        open_session(make_config("llama", "ia3", where="encoder"))


# LoRA with biases -----------------------------------------------------------------------------------------------------


def test_lora_with_biases_trains_loras_matrices_and_bitfits_biases(make_config):
    lora, bitfit, both = (
        open_session(make_config("t5", method, **fields))
        for method, fields in (("lora", {}), ("bitfit", {}), ("lora", {"lora_bias": "all"}))
    )
    assert both.param_counts[0] == lora.param_counts[0] + bitfit.param_counts[0]
    assert not any("relative_attention_bias" in name for name in both.trainables)
    assert set(both.config.method_options.learning_rates()) == {r".*\.lora_[AB]\..*", r".*\.bias"}


@pytest.mark.filterwarnings("ignore:::peft")
@pytest.mark.parametrize("family", FAMILIES)
def test_lora_with_biases_computes_what_lora_and_the_biases_do(make_config, family):
    """Plain PEFT LoRA on a model of linears and norms whose outputs hooks shift by the biases."""
    session = filled_session(make_config, family, "lora", lora_bias="all")
    plain = load_model(session.config.model)[0]
    weights = {name: p.detach() for name, p in session.trainables.items()}
    for name, bias in weights.items():
        if name.endswith(".bias"):
            layer = plain.get_submodule(
                name.removeprefix("base_model.model.").removesuffix(".bias").removesuffix(".base_layer")
            )
            change = bias if getattr(layer, "bias", None) is None else bias - layer.bias
            layer.register_forward_hook(lambda *seen, change=change: seen[-1] + change)
    theirs = peft.get_peft_model(plain, peft_config("lora", family)).eval()
    theirs.load_state_dict({name: w for name, w in weights.items() if "lora_" in name}, strict=False)
    batch = session.codec.train_batch(examples(session))
    torch.testing.assert_close(session.model(**batch).loss, theirs(**batch).loss, rtol=1e-4, atol=1e-5)


def test_lora_without_biases_is_as_it_was():
    plain = resolve({"task": "rte", "method": "lora"})
    assert plain.lora_bias is None and set(plain.method_options.learning_rates()) == {r".*\.lora_[AB]\..*"}
    assert resolve({"task": "rte", "method": "lora", "lora_bias": None}).run_id == plain.run_id
    assert resolve({"task": "rte", "method": "lora", "lora_bias": "all"}).run_id != plain.run_id
    assert METHODS["lora"]().model_dump() == {
        "rank": 16, "lora_alpha": 32.0, "lora_dropout": 0.1, "lr": 1e-4, "lora_bias": None,
    }  # fmt: skip
