"""Adapters and BitFit: what they compute, beside the models written out and beside plain transformers with hooks."""

import re

import pytest
import torch
import torch.nn.functional as F
from conftest import FAMILIES
from explicit_formulas import examples, filled_session
from plain_t5 import plain_t5_loss
from tiny_families import build
from torch import nn

from adept.base.errors import UserError
from adept.methods import METHODS
from adept.methods.adapters import Adapter, AdapterDrop
from adept.methods.biases import BitFit
from adept.training.session import open_session

EXACT = {"rtol": 1e-4, "atol": 1e-5}
IDS = torch.tensor([[5, 9, 17, 4, 33, 8]])


def fill(model: nn.Module, std: float = 0.3) -> None:
    """Random values in all that is trained, always the same."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=std)


def logits(model: nn.Module) -> torch.Tensor:
    more = {"decoder_input_ids": IDS[:, :4]} if model.config.is_encoder_decoder else {}
    return model.eval()(input_ids=IDS, **more).logits.detach()


def change_output(layer: nn.Module, function) -> None:
    """Makes function(y) of the output y of a plain layer."""
    layer.register_forward_hook(lambda *seen: function(seen[-1]))


# T5, written out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "fields"),
    [("adapter", {}), ("adapterdrop", {}), ("adapter", {"train_norms": False}), ("bitfit", {}), ("zero_shot", {})],
)
def test_the_loss_on_t5_is_that_of_the_model_written_out(make_config, method, fields):
    session = filled_session(make_config, "t5", method, **fields)
    batch = examples(session)
    loss = session.model(**session.codec.train_batch(batch)).loss
    weights = dict(session.model.named_parameters())
    rows = [plain_t5_loss(weights, session.model.config, row.source_ids, row.target_ids) for row in batch]
    torch.testing.assert_close(loss, sum(rows) / sum(len(row.target_ids) for row in batch), **EXACT)


@pytest.mark.parametrize("part", ["q", "k", "v", "o"])
def test_a_bias_of_the_cross_attention_counts(make_config, part):
    """Its arithmetic on short targets (adept/models/t5_attention.py) multiplies with k and v as plain matrices."""
    session = open_session(make_config("t5", "bitfit"))
    before = logits(session.model)
    with torch.no_grad():
        session.model.decoder.block[0].layer[1].EncDecAttention.get_submodule(part).bias.normal_(std=2.0)
    changed = not torch.allclose(before, logits(session.model), **EXACT)
    assert changed == (part != "k")  # what all keys have in common, softmax takes out again


# The start ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_bitfit_starts_as_the_model(make_config, family):
    plain, adapted = (open_session(make_config(family, method)).model for method in ("zero_shot", "bitfit"))
    torch.testing.assert_close(logits(plain), logits(adapted), **EXACT)  # T5 sums in another order


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_start_with_small_weights_and_are_nothing_where_these_are_zero(make_config, family):
    plain, adapted = (
        open_session(make_config(family, method, **fields)).model
        for method, fields in (("zero_shot", {}), ("adapter", {"bottleneck": 64}))
    )
    start = {name: p.detach() for name, p in adapted.named_parameters()}
    ups = [parameter for name, parameter in start.items() if name.endswith("adapter.up.weight")]
    downs = [parameter for name, parameter in start.items() if name.endswith("adapter.down.weight")]
    assert len(ups) == len(downs) == (8 if family == "t5" else 4)
    for weight in (torch.cat([*map(torch.flatten, ups)]), torch.cat([*map(torch.flatten, downs)])):
        assert abs(weight.mean()) < 5e-4 and weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not any(p.any() for name, p in start.items() if re.search(r"adapter\.(up|down)\.bias", name))
    torch.testing.assert_close(logits(adapted), logits(plain), rtol=0, atol=0.1)
    with torch.no_grad():
        for weight in ups:
            weight.zero_()
    assert torch.equal(logits(adapted), logits(plain))


# Places ---------------------------------------------------------------------------------------------------------------

OUTPUTS = {
    "T5": r"(en|de)coder\.block\.\d\.layer\.(0\.SelfAttention\.o|[12]\.DenseReluDense\.wo)",
    "MT5": r"(en|de)coder\.block\.\d\.layer\.(0\.SelfAttention\.o|[12]\.DenseReluDense\.wo)",
    "T5Gemma": r"model\.(en|de)coder\.layers\.\d\.(self_attn\.o_proj|mlp\.down_proj)",
    "Bart": r"model\.(en|de)coder\.layers\.\d\.(self_attn\.out_proj|fc2)",
    "Llama": r"model\.layers\.\d\.(self_attn\.o_proj|mlp\.down_proj)",
    "Qwen3": r"model\.layers\.\d\.(self_attn\.o_proj|mlp\.down_proj)",
    "Gemma2": r"model\.layers\.\d\.(self_attn\.o_proj|mlp\.down_proj)",
    "Phi3": r"model\.layers\.\d\.(self_attn\.o_proj|mlp\.down_proj)",
    "Phi": r"model\.layers\.\d\.(self_attn\.dense|mlp\.fc2)",
    "Starcoder2": r"model\.layers\.\d\.(self_attn\.o_proj|mlp\.c_proj)",
    "CodeGen": r"transformer\.h\.\d\.(attn\.out_proj|mlp\.fc_out)",
    "GPTJ": r"transformer\.h\.\d\.(attn\.out_proj|mlp\.fc_out)",
    "GPT2": r"transformer\.h\.\d\.(attn|mlp)\.c_proj",
    "OPT": r"model\.decoder\.layers\.\d\.(self_attn\.out_proj|fc2)",
    "GPTNeoX": r"gpt_neox\.layers\.\d\.(attention\.dense|mlp\.dense_4h_to_h)",
    "Bloom": r"transformer\.h\.\d\.(self_attention\.dense|mlp\.dense_4h_to_h)",
    "Falcon": r"transformer\.h\.\d\.(self_attention\.dense|mlp\.dense_4h_to_h)",
}
"""The last linears of self-attention and feed-forward network, by family."""


@pytest.mark.parametrize("family", OUTPUTS)
def test_adapters_are_behind_each_self_attention_and_feed_forward(family):
    """Plain transformers with hooks there, which compute the adapters' formula, gives the same logits."""
    adapted, plain = build(family).requires_grad_(False), build(family)
    Adapter(bottleneck=3, train_norms=False).adapt(adapted, None)
    fill(adapted)
    weights = {name: p for name, p in adapted.named_parameters() if p.requires_grad}

    def behind(name):
        down, up = (
            (weights[f"{name}.adapter.{side}.weight"], weights[f"{name}.adapter.{side}.bias"])
            for side in ("down", "up")
        )
        return lambda y: y + F.linear(F.gelu(F.linear(y, *down), approximate="tanh"), *up)

    places = [name for name, _ in plain.named_modules() if re.fullmatch(OUTPUTS[family], name)]
    assert len(places) == (8 if plain.config.is_encoder_decoder else 4)
    assert {name.split(".adapter.")[0] for name in weights} == set(places)
    untouched = logits(plain)
    for name in places:
        change_output(plain.get_submodule(name), behind(name))
    assert not torch.allclose(logits(plain), untouched, **EXACT)
    torch.testing.assert_close(logits(adapted), logits(plain), **EXACT)


@pytest.mark.parametrize(
    ("blocks", "numbers"),
    [("0-", [0, 1, 2, 3]), ("2-", [2, 3]), ("1-2", [1, 2]), ("3", [3]), ("0,2-3", [0, 2, 3]), ("1,1", [1])],
)
def test_adapter_blocks_are_counted_in_each_stack(blocks, numbers):
    for family, fields in (("T5", {"num_layers": 4}), ("Llama", {"num_hidden_layers": 4})):
        model = build(family, **fields).requires_grad_(False)
        Adapter(adapter_blocks=blocks, bottleneck=1).adapt(model, None)
        found = [name for name, _ in model.named_modules() if name.endswith(".adapter")]
        stacks = ["encoder.block", "decoder.block"] if family == "T5" else ["model.layers"]
        expected = {f"{stack}.{number}" for stack in stacks for number in numbers}
        assert {re.match(r".*?\.\d+", name)[0] for name in found} == expected
        assert len(found) == 2 * len(expected)


def test_adapterdrop_is_adapters_from_the_sixth_block_on():
    assert AdapterDrop().block_numbers(12) == {*range(5, 12)} == Adapter(adapter_blocks="5-11").block_numbers(12)
    assert Adapter().block_numbers(12) == {*range(12)}


@pytest.mark.parametrize(
    ("blocks", "line"),
    [
        ("upper", "--adapter_blocks must be numbers and ranges such as 5-11, 0,2,4 or 5-, not 'upper'"),
        ("-3", "--adapter_blocks must be numbers and ranges such as 5-11, 0,2,4 or 5-, not '-3'"),
        ("5-11", "--adapter_blocks 5-11: there is no block 5-11, because the model has 2 blocks a stack, 0-1"),
        ("0,2", "--adapter_blocks 0,2: there is no block 2, because the model has 2 blocks a stack, 0-1"),
        ("2-", "--adapter_blocks 2-: there is no block 2-, because the model has 2 blocks a stack, 0-1"),
        ("1-0", "--adapter_blocks 1-0: there is no block 1-0, because the model has 2 blocks a stack, 0-1"),
    ],
)
def test_blocks_that_are_not_there_are_one_line(blocks, line):
    with pytest.raises(UserError) as caught:
        Adapter(adapter_blocks=blocks).adapt(build("T5").requires_grad_(False), None)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("family", "train_norms", "count"),
    [
        ("T5", None, 12),
        ("T5", False, 0),
        ("Llama", None, 0),
        ("Llama", True, 5),
        ("Qwen3", True, 9),
        ("GPT2", True, 10),
    ],
)
def test_norms_are_trained_in_encoder_decoders_or_as_asked(family, train_norms, count):
    """Qwen3 has norms of queries and keys too, GPT-2's have biases."""
    model = build(family).requires_grad_(False)
    before = {name: p.clone() for name, p in model.named_parameters()}
    Adapter(train_norms=train_norms).adapt(model, None)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and ".adapter." not in name}
    assert len(trained) == count and all(torch.equal(p, before[name]) for name, p in trained.items())
    assert all("norm" in name or "ln_" in name for name in trained)


# BitFit's places ------------------------------------------------------------------------------------------------------


def test_bitfit_adds_biases_to_linears_norms_and_head_of_t5():
    model = build("T5").requires_grad_(False)
    BitFit().adapt(model, None)
    trained = {name.removesuffix(".bias") for name, p in model.named_parameters() if p.requires_grad}
    places = {
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or name.endswith(".layer_norm")) and "final" not in name
    }
    assert trained == places and "lm_head" in places and len(places) == 2 * (4 + 2 + 2) + 2 * (8 + 2 + 3) + 1


@pytest.mark.parametrize("family", ["Llama", "T5Gemma", "Mistral"])
def test_bitfit_adds_biases_that_count_where_there_are_none(family):
    """Each one but the keys' changes what the model says, as a hook on the plain model does."""
    model, plain = build(family).requires_grad_(False), build(family)
    BitFit().adapt(model, None)
    fill(model, std=0.5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            change_output(plain.get_submodule(name.removesuffix(".bias")), parameter.detach().add)
    torch.testing.assert_close(logits(model), logits(plain), **EXACT)


@pytest.mark.parametrize("family", ["GPT2", "CodeGen", "Bart", "Qwen2"])
def test_bitfit_trains_the_biases_that_a_model_has(family):
    model = build(family).requires_grad_(False)
    names = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    before = logits(model)
    BitFit().adapt(model, None)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == names
    assert len([*model.parameters()]) == len([*build(family).parameters()])
    assert torch.equal(before, logits(model))


def test_a_bias_that_two_modules_share_is_trained_as_one():
    model = build("RoFormer").requires_grad_(False)
    head = model.cls.predictions
    assert head.bias is head.decoder.bias
    BitFit().adapt(model, None)
    assert head.bias is head.decoder.bias and head.bias.requires_grad


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["adapter", "bitfit", "ia3"])
@pytest.mark.parametrize("family", ["Mixtral", "SwitchTransformers", "Mpt"])
def test_blocks_of_other_modules_are_refused_in_one_line(family, method):
    with pytest.raises(
        UserError, match=rf"^{family}\w+ has blocks without one attention and one feed-forward"
    ) as caught:
        METHODS[method]().adapt(build(family).requires_grad_(False), None)
    assert "\n" not in str(caught.value)


def test_a_model_without_weights_in_its_norms_has_none_to_train():
    model = build("Olmo").requires_grad_(False)
    for method in (METHODS["ln_tuning"](), Adapter(train_norms=True)):
        with pytest.raises(UserError, match=r"^OlmoForCausalLM has no normalisation layers with weights to train$"):
            method.adapt(model, None)
