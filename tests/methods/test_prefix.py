"""Prefix-tuning: what the attentions see, compared with plain transformers and with attention written out here."""

import copy
import types

import pytest
import torch
import torch.nn.functional as F
import transformers
from conftest import runnable
from explicit_formulas import examples, loss_of
from teacher_forcing import check_beams, check_cached_generation
from tiny_families import CAUSAL, SEQ2SEQ, build

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.models.likelihood import choice_logits
from adept.models.loading import load_model, shape_only_model
from adept.models.prefix_attention import add_prefixes
from adept.models.t5_attention import MaskedBiasAttention, ShortTargetCrossAttention
from adept.training.loop import run
from adept.training.losses import batch_losses
from adept.training.session import open_session, open_sessions

SERVED = [family for _, family in runnable(["prefix"])]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
NO_INTERFACE = {
    "GPTJ", "CodeGen", "GPTNeo", "Bloom", "Mpt", "Falcon", "XGLM", "OpenAIGPT", "Mamba", "Mamba2", "Rwkv", "RoFormer",
    "LongT5", "PegasusX", "Mvp", "LED", "BigBirdPegasus", "ProphetNet",
}  # fmt: skip


@pytest.fixture
def filled(make_config):
    """filled(family, **fields): a session whose prefixes are random and large, and its rows."""

    def make(family, **fields):
        session = open_session(make_config(family, "prefix", model_dropout=0, **fields))
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in session.trainables.values():
                parameter.normal_(std=0.7)
        session.model.eval()
        return session, examples(session)

    return make


def prefixes(model) -> dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """{attention: its keys and values [H, m, d]}, in the order of the modules."""
    return {module: module.prefix() for module in model.modules() if "prefix" in module._modules}


# Counts and starts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "fields", "count"),
    [
        ("t5-base", {"prompt_len": 4, "where": "encoder"}, 4 * 12 * 2 * 768),
        ("t5-base", {"prompt_len": 1}, 36 * 2 * 768),
        ("t5-base", {"prompt_len": 10, "hidden": 512}, 3 * (10 * 768 + 769 * 512) + 513 * 36 * 2 * 768),
        ("t5-base", {"prompt_len": 5, "hidden": 8, "where": "encoder"}, 5 * 768 + 769 * 8 + 9 * 12 * 2 * 768),
        ("llama3-8b", {"prompt_len": 1}, 32 * 2 * 8 * 128),
    ],
)
def test_parameters_on_true_shapes(model, fields, count):
    method = resolve({"task": "rte", "method": "prefix", "model": model, **fields}).method_options
    adapted = method.adapt(shape_only_model(model), None)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == count


def test_a_table_starts_small_and_normal(make_config):
    session = open_session(make_config("t5", "prefix", prompt_len=400))
    values = torch.cat([parameter.detach().flatten() for parameter in session.trainables.values()])
    assert len(values) == 6 * 2 * 4 * 400 * 8
    assert values.mean().abs() < 2e-4 and values.std() == pytest.approx(0.02, rel=0.01)


def test_a_network_starts_as_torchs_layers(make_config):
    """One network each for the encoder's, the decoder's and the cross-attentions."""
    session = open_session(make_config("t5", "prefix", hidden=6))
    networks = {module.prefix.network: None for module in prefixes(session.model)}
    assert len(networks) == 3
    for network in networks:
        assert network.embeddings.shape == (3, 32) and network.linear.weight.abs().max() <= 32**-0.5
    module, (keys, values) = next(iter(prefixes(session.model).items()))
    network = module.prefix.network
    states = torch.tanh(F.linear(network.embeddings, *network.linear.parameters()))  # [m, hidden]
    flat = F.linear(states, *module.prefix.to_keys.parameters())
    torch.testing.assert_close(keys, torch.stack([flat[:, 8 * h : 8 * h + 8] for h in range(4)]))
    flat = F.linear(states, *module.prefix.to_values.parameters())
    torch.testing.assert_close(values, torch.stack([flat[:, 8 * h : 8 * h + 8] for h in range(4)]))


# What is computed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 6])
def test_a_causal_models_loss_is_plain_transformers_with_the_prefix_as_its_cache(filled, hidden):
    session, rows = filled("llama", hidden=hidden)
    plain, _ = load_model(session.config.model)
    total, count = torch.zeros(()), 0
    for row in rows:
        cache = transformers.DynamicCache()
        for layer, (keys, values) in enumerate(prefixes(session.model).values()):
            cache.update(keys[None].detach(), values[None].detach(), layer)
        ids = torch.tensor([[*row.source_ids, *row.target_ids]])
        logits = plain(
            input_ids=ids, past_key_values=cache, position_ids=torch.arange(ids.shape[1])[None],
            attention_mask=torch.ones(1, 3 + ids.shape[1]),
        ).logits  # fmt: skip
        start = len(row.source_ids) - 1
        total += F.cross_entropy(logits[0, start:-1], torch.tensor(row.target_ids), reduction="sum")
        count += len(row.target_ids)
    torch.testing.assert_close(loss_of(session, rows).detach(), total.detach() / count, **CLOSE)


def explicit_attention(keys, values):
    """T5's attention, one query after another, whose keys and values begin with those."""

    def forward(self, hidden_states, mask=None, key_value_states=None, position_bias=None, **kwargs):
        states = hidden_states if key_value_states is None else key_value_states
        if position_bias is None and self.has_relative_attention_bias:
            position_bias = self.compute_bias(hidden_states.shape[1], states.shape[1])
        q, k, v = (
            project(x)[0].unflatten(-1, (self.n_heads, -1))
            for project, x in ((self.q, hidden_states), (self.k, states), (self.v, states))
        )
        out = torch.zeros_like(q)
        for i in range(len(q)):
            seen = i + 1 if self.is_causal else len(k)
            for head in range(self.n_heads):
                own = k[:seen, head] @ q[i, head]
                own = own if position_bias is None else own + position_bias[0, head, i, :seen]
                weights = torch.cat([keys[head] @ q[i, head], own]).softmax(0)
                out[i, head] = weights @ torch.cat([values[head], v[:seen, head]])
        return self.o(out.flatten(1))[None], position_bias, None

    return forward


def with_explicit_attention(session):
    """A plain model of the session's whose prefixes are in explicit_attention()."""
    plain = transformers.AutoModelForSeq2SeqLM.from_pretrained(session.config.model).eval()
    found, none = prefixes(session.model), torch.zeros(4, 0, 8)
    for module, own in zip(plain.modules(), [m for m in session.model.modules() if not is_prefix(m)], strict=True):
        if type(module).__name__ == "T5Attention":
            keys, values = found.get(own, (none, none))
            module.forward = types.MethodType(explicit_attention(keys, values), module)
    return plain


def is_prefix(module) -> bool:
    """Whether a module is a part of a prefix."""
    return "prefix_attention" in type(module).__module__ or (
        type(module) is torch.nn.Linear and module.bias is not None
    )


@pytest.mark.parametrize("fields", [{"where": "all"}, {"where": "encoder"}, {"hidden": 6}], ids=str)
def test_t5s_loss_is_that_of_attention_written_out(filled, fields):
    session, rows = filled("t5", **fields)
    plain, total, count = with_explicit_attention(session), torch.zeros(()), 0
    for row in rows[:4]:
        decoder = torch.tensor([[0, *row.target_ids[:-1]]])
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([row.source_ids]), decoder_input_ids=decoder, use_cache=False).logits
        total += F.cross_entropy(logits[0], torch.tensor(row.target_ids), reduction="sum")
        count += len(row.target_ids)
    torch.testing.assert_close(loss_of(session, rows[:4]).detach(), total / count, **CLOSE)


@pytest.mark.parametrize("family", SERVED)
def test_without_its_prefix_an_attention_is_the_plain_models(filled, family):
    session, rows = filled(family)
    plain = open_session(session.config.replace(method="zero_shot", prompt_len=None, hidden=None, where=None, lr=None))
    assert (loss_of(session, rows) - loss_of(plain, rows)).abs() > 1e-2
    for module in prefixes(session.model):
        del module.prefix
    torch.testing.assert_close(loss_of(session, rows), loss_of(plain, rows), **CLOSE)


@pytest.mark.parametrize("where", ["all", "encoder"])
def test_every_prefix_of_t5_counts(filled, where):
    """The cheaper cross-attention would not see one: it hands no keys to the interface."""
    session, rows = filled("t5", where=where)
    loss_of(session, rows).backward()
    assert len(prefixes(session.model)) == {"all": 6, "encoder": 2}[where]
    assert all(parameter.grad.abs().max() > 1e-6 for parameter in session.trainables.values())
    kept = {type(m) for m in session.model.modules()} & {MaskedBiasAttention, ShortTargetCrossAttention}
    assert kept == ({ShortTargetCrossAttention} if where == "encoder" else set())


# Answers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", SERVED)
def test_cached_generation_of_a_padded_batch_is_teacher_forcing_of_single_rows(filled, family):
    session, rows = filled(family)
    check_cached_generation(session, rows)
    check_beams(session, rows)


@pytest.mark.parametrize("family", SERVED)
def test_label_scores_do_not_depend_on_padding_or_cache(filled, family):
    session, rows = filled(family)
    choices = torch.tensor([[5, 6, 1], [7, 8, 1]])
    with_cache = session.capabilities.has_key_cache
    with torch.no_grad():
        batch = choice_logits(session.model, session.codec.source_batch(rows[:5]), choices, with_cache=with_cache)
        single = [
            choice_logits(session.model, session.codec.source_batch([row]), choices, with_cache=False)
            for row in rows[:5]
        ]
    torch.testing.assert_close(batch, torch.cat(single), rtol=1e-3, atol=1e-3)
    assert session.shared_prefix == 0 and not session.codec.prompt_ids  # no token is added


@pytest.mark.parametrize("family", SERVED)
@pytest.mark.parametrize("hidden", [0, 6])
def test_bf16_is_fp32_up_to_its_rounding(filled, family, hidden):
    losses = {}
    for precision in ("fp32", "bf16"):
        session, rows = filled(family, hidden=hidden, precision=precision)
        assert {p.dtype for p in session.trainables.values()} == {torch.float32}
        losses[precision] = loss_of(session, rows).item()
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)


def with_gradients(session, rows) -> list[torch.Tensor]:
    """The loss, and the gradient of each trained parameter."""
    loss = loss_of(session, rows)
    return [loss, *torch.autograd.grad(loss, list(session.trainables.values()))]


@pytest.mark.parametrize("family", SERVED)
def test_checkpointed_activations_compute_the_same(filled, family):
    computed = [with_gradients(*filled(family, hidden=6, checkpoint_activations=chosen)) for chosen in (False, True)]
    assert all(map(torch.equal, *computed))


@pytest.mark.long  # tracing takes half a minute
@pytest.mark.parametrize("family", SERVED)
def test_the_step_compiles_into_one_graph(filled, family):
    torch._dynamo.reset()
    session, rows = filled(family, hidden=6)
    plain = with_gradients(session, rows)
    session.batch_losses = torch.compile(batch_losses, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(with_gradients(session, rows), plain)


def test_a_stored_network_answers_as_it_was_trained(make_config):
    from adept.serving.load import load

    record = run(config := make_config("t5", "prefix", hidden=6, scoring="likelihood", lr=0.1))
    session = load(record["run_id"], results_dir=config.results_dir)
    assert {name for name in session.trainables if "network" in name} == {
        f"{stack}.block.0.layer.{i}.{attention}.prefix.network.{part}"
        for stack, i, attention in (
            ("encoder", 0, "SelfAttention"), ("decoder", 0, "SelfAttention"), ("decoder", 1, "EncDecAttention"),
        )
        for part in ("embeddings", "linear.weight", "linear.bias")
    }  # fmt: skip
    assert record["trainable_params"] == sum(p.numel() for p in session.trainables.values())


# Other runs and other models ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", SERVED)
def test_a_run_on_the_same_model_is_untouched(make_config, family):
    """The config's implementation of attention, T5's cheaper attention, and the losses."""
    plain = make_config(family, "lora", lora_dropout=0)
    alone = open_session(plain)
    for order in ([make_config(family, "prefix"), plain], [plain, make_config(family, "prefix")]):
        sessions = {session.config.method: session for session in open_sessions(order)}
        other = sessions["lora"]
        assert other.model.config._attn_implementation == "sdpa"
        assert sessions["prefix"].model.config._attn_implementation == "prefixed_sdpa"
        assert not prefixes(other.model) and prefixes(sessions["prefix"].model)
        types_of = [[type(m) for m in session.model.modules()] for session in (other, alone)]
        assert types_of[0] == types_of[1]
        losses = [loss_of(session, examples(session)) for session in (other, alone) if session.model.eval()]
        assert torch.equal(*losses)


def test_a_copy_has_prefixes_and_attention_of_its_own(filled):
    session, rows = filled("t5", hidden=6)
    twin = copy.deepcopy(session.model)
    with torch.no_grad():
        for parameter in session.trainables.values():
            parameter.zero_()
    before = loss_of(session, rows)
    session.model, original = twin, session.model
    assert (loss_of(session, rows) - before).abs() > 1e-2
    assert not {*twin.parameters()} & {*original.parameters()}


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_a_family_is_served_or_refused_in_one_line(family):
    model = build(family).requires_grad_(False)
    if family in NO_INTERFACE:
        with pytest.raises(UserError, match=r"cannot reach the attention of \w+, which does not call transformers'"):
            add_prefixes(model, 3, 0, "all")
        return
    source = torch.randint(5, 300, (2, 7))
    mask = torch.tensor([[1] * 7, [0] * 3 + [1] * 4])
    extra = {"decoder_input_ids": source[:, :4]} if model.config.is_encoder_decoder else {}
    inputs = {"input_ids": source, "attention_mask": mask, **extra}
    plain = model(**inputs).logits
    add_prefixes(model, 3, 0, "all")
    assert not torch.equal(model(**inputs).logits, plain)
    model(**inputs).logits[:, -1].square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert gradients and all(gradient.abs().max() > 0 for gradient in gradients)
    for module in prefixes(model):
        del module.prefix
    torch.testing.assert_close(model(**inputs).logits[:, -1], plain[:, -1], **CLOSE)


def test_what_has_no_encoder_is_one_line(make_config):
    with pytest.raises(UserError, match="LlamaForCausalLM has no encoder: --where all"):
        open_session(make_config("llama", "prefix", where="encoder"))
    with pytest.raises(UserError, match="cannot reach the attention of CodeGenForCausalLM"):
        open_session(make_config("codegen", "prefix"))
