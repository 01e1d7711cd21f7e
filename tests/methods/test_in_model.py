"""What all methods inside the model have in common: counts on true shapes, generation, precision, sharing, graphs."""

import pytest
import torch
from conftest import FAMILIES
from explicit_formulas import examples, filled_session

from adept.config.layers import resolve
from adept.data.batches import make_batch
from adept.methods import METHODS
from adept.methods.swapped_modules import add_adapter, add_bias
from adept.models.families import input_embedding_owner
from adept.models.loading import copy_sharing_parameters, load_model, random_model, shape_only_model
from adept.models.tiny import make_model
from adept.runs.adapter import read_weights
from adept.serving.load import load
from adept.training.loop import run
from adept.training.losses import batch_losses
from adept.training.session import open_session
from adept.training.stack import Stack

IN_MODEL = ("adapter", "adapterdrop", "bitfit", "dora", "vera", "ia3", "ln_tuning")
WITH_BIASES = {"lora_with_biases": ("lora", {"lora_bias": "all"})}
CASES = [name for name in (*IN_MODEL, *WITH_BIASES) if name != "adapterdrop"]  # it is adapter with another default


def case(name: str) -> tuple[str, dict]:
    """(method, options) of one of CASES."""
    return WITH_BIASES.get(name, (name, {}))


# Counts ---------------------------------------------------------------------------------------------------------------

COUNTS = [
    ("t5-base", {"method": "adapter"}, 48 * (2 * 768 * 24 + 24 + 768) + 62 * 768),
    ("t5-base", {"method": "adapter"}, 1_855_104),
    ("t5-base", {"method": "adapter", "train_norms": False}, 1_855_104 - 47_616),
    ("t5-base", {"method": "adapterdrop"}, 1_101_984),
    ("t5-base", {"method": "adapterdrop", "adapter_blocks": "5-11"}, 1_101_984),
    ("t5-base", {"method": "bitfit"}, 280_960),
    ("t5-base", {"method": "lora", "rank": 32, "lora_bias": "all"}, 3_819_904),
    ("t5-base", {"method": "dora"}, 1_769_472 + 72 * 768),
    ("t5-base", {"method": "vera"}, 76_752),
    ("t5-base", {"method": "vera", "rank": 256}, 73_728),
    ("t5-base", {"method": "ia3"}, 129_024),
    ("t5-base", {"method": "ia3", "where": "encoder"}, 55_296),
    ("t5-base", {"method": "ln_tuning"}, 47_616),
    ("codegen-350m", {"method": "adapter", "bottleneck": 1}, 122_920),
    ("codegen-350m", {"method": "bitfit"}, 175_104),
    ("codegen-350m", {"method": "vera", "rank": 256}, 66_560),
    ("codegen-350m", {"method": "ia3"}, 143_360),
    ("llama3-8b", {"method": "adapter", "bottleneck": 1}, 786_496),
    ("llama3-8b", {"method": "bitfit"}, 1_376_256),
    ("llama3-8b", {"method": "vera", "rank": 256}, 180_224),
    ("llama3-8b", {"method": "ia3"}, 524_288),
    ("llama3-8b", {"method": "ln_tuning"}, 65 * 4096),
]


def count(model, **flags) -> int:
    """Trained parameters of a method's options on a model on the meta device."""
    adapted = resolve({"task": "rte", **flags}).method_options.adapt(model, None)
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad)


@pytest.mark.parametrize(("shape", "flags", "expected"), COUNTS, ids=str)
def test_parameter_counts_on_true_shapes(shape, flags, expected):
    assert count(shape_only_model(shape), **flags) == expected


def test_bitfits_quoted_count_is_that_of_a_table_of_32_100_rows():
    assert count(random_model("t5-base", "meta", vocab_size=32_100), method="bitfit") == 280_932


# One model for several runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CASES)
def test_what_is_trained_in_one_copy_of_a_model_does_not_reach_the_others(make_config, name, family):
    """A sweep's runs share the frozen weights of one loaded model (adept/training/session.py)."""
    method, fields = case(name)
    config = make_config(family, method, **fields)
    model, tokenizer = load_model(config.model)
    copies = [copy_sharing_parameters(model) for _ in range(2)]
    before = [(type(module), len([*module.children()])) for module in model.modules()]
    weights = {parameter: parameter.clone() for parameter in model.parameters()}
    for each in (copies[0], model):  # a copy first, then the original
        adapted = config.method_options.adapt(each, tokenizer)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(1)
    other = copies[1]
    assert [(type(module), len([*module.children()])) for module in other.modules()] == before
    assert not any(parameter.requires_grad for parameter in other.parameters())
    assert set(other.parameters()) == set(weights)
    assert all(torch.equal(parameter, start) for parameter, start in weights.items())


# Generation, precision, graphs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CASES)
def test_cached_generation_equals_teacher_forcing(make_config, name, family):
    """Rows of several lengths at once, so that padding is there, beside each row alone."""
    method, fields = case(name)
    session = filled_session(make_config, family, method, **fields)
    batch = examples(session)
    output = session.model.generate(
        **session.codec.source_batch(batch), do_sample=False, max_new_tokens=5, output_logits=True,
        return_dict_in_generate=True, pad_token_id=0,
    )  # fmt: skip
    steps = torch.stack(output.logits, dim=1)  # [B, L, V]
    answers = output.sequences[:, -steps.shape[1] :]
    for example, answer, seen in zip(batch, answers, steps, strict=True):
        source = torch.tensor([example.source_ids])
        if session.capabilities.encoder_decoder:
            start = torch.tensor([[0, *answer[:-1]]])
            logits = session.model(input_ids=source, decoder_input_ids=start).logits[0]
        else:
            logits = session.model(input_ids=torch.cat([source, answer[None]], dim=1)).logits[
                0, source.shape[1] - 1 : -1
            ]
        torch.testing.assert_close(seen, logits, rtol=1e-3, atol=1e-3)


def batch_of(session):
    return make_batch(session.codec, examples(session)[:4]).inputs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CASES)
def test_bf16_rounds_the_model_and_not_what_is_trained(make_config, name, family):
    method, fields = case(name)
    fields = {**fields, "model_dropout": 0, **({"lora_dropout": 0} if method in ("lora", "dora") else {})}
    exact, rounded = (open_session(make_config(family, method, **fields, precision=name)) for name in ("fp32", "bf16"))
    assert {p.dtype for p in rounded.trainables.values()} == {torch.float32}
    assert {p.dtype for p in rounded.model.parameters() if not p.requires_grad} == {torch.bfloat16}
    losses = [Stack([session]).losses([batch_of(session)]).sum() for session in (exact, rounded)]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=2e-2)
    gradients = torch.autograd.grad(losses[1], [*rounded.trainables.values()])
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", CASES)
def test_activation_checkpointing_changes_no_gradient(make_config, name):
    method, fields = case(name)
    computed = []
    for again in (False, True):
        session = filled_session(make_config, "t5", method, **fields, checkpoint_activations=again)
        session.model.train()
        torch.manual_seed(1)
        loss = batch_losses(session.model, batch_of(session), 0, 1).sum()
        computed.append([loss, *torch.autograd.grad(loss, [*session.trainables.values()])])
    assert all(torch.equal(a, b) for a, b in zip(*computed, strict=True))


def test_a_compiled_step_tells_changed_layers_from_plain_ones():
    """One after the other in a process: what was traced for a plain layer is not used for a changed one."""
    torch._dynamo.reset()
    compiled = torch.compile(lambda layer, x: layer(x), backend="eager", fullgraph=True)
    x = torch.randn(2, 3, 32)
    for change in (None, "adapter", "bias", None):
        layer = make_model("t5").encoder.block[0].layer[1].eval()
        if change == "adapter":
            add_adapter(layer.DenseReluDense.wo, 3)
        if change == "bias":
            add_bias(layer.layer_norm, 32)
            torch.nn.init.ones_(layer.layer_norm.bias)
        torch.testing.assert_close(compiled(layer, x), layer(x))


def test_the_prompts_place_stays_free(make_config):
    """No method inside the model touches the input embedding."""
    for method in IN_MODEL:
        session = open_session(make_config("t5", method))
        assert session.prompted_embedding is None and not session.codec.prompt_ids
        assert type(input_embedding_owner(session.model).get_input_embeddings()) is torch.nn.Embedding
        assert not METHODS[method].stacks


@pytest.mark.parametrize(("method", "fields"), [("lora", {"lora_bias": "all"}), ("ia3", {"where": "encoder"})])
def test_a_saved_run_with_these_options_is_loaded_as_it_was(make_config, tmp_path, method, fields):
    record = run(make_config("t5", method, **fields))
    folder = tmp_path / "results" / "runs" / record["run_id"]
    session, weights = load(str(folder)), read_weights(folder)
    assert session.trainables.keys() == weights.keys()
    assert all(torch.equal(p, weights[name]) for name, p in session.trainables.items())
    assert sum(w.numel() for w in weights.values()) == record["trainable_params"]
