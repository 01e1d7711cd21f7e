"""What makes training and evaluation fast changes no result: each against the plain way."""

import copy
import dataclasses
import itertools

import pytest
import torch
from conftest import FAMILIES, make_model
from torch._dynamo.testing import CompileCounter

from adept.data.batches import make_batch, training_batches
from adept.data.dataset import load_data
from adept.methods.embedding import PromptedEmbedding
from adept.models.loading import patch_attention_and_dropout
from adept.models.t5_attention import MaskedBiasAttention, ShortTargetCrossAttention
from adept.tasks.task import Sampling
from adept.training.evaluation import LEAST_FULL, evaluation_batches, predict
from adept.training.loop import run
from adept.training.losses import batch_losses
from adept.training.session import open_session, open_sessions
from adept.training.stack import Stack

EXACT = {"rtol": 1e-10, "atol": 1e-12}
CLOSE = {"rtol": 1e-4, "atol": 1e-6}  # CodeGen's attention computes in float32 whatever comes


@pytest.fixture
def opened(make_config):
    """opened(family, method, **fields): a session in float64 whose trained parameters are no longer where they started,
    and its rows.
    """

    def make(family, method="adept", **fields):
        dropout = {"lora_dropout": 0} if method == "lora" else {}
        session = open_session(make_config(family, method, **{"model_dropout": 0, **dropout, **fields}))
        session.model.double().train()
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in session.trainables.values():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return session, session.codec.encode(load_data(session.task, session.config).train)

    return make


def gradients(session, loss):
    return torch.autograd.grad(loss, list(session.trainables.values()))


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["adept", "dept", "pt", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_the_models_own_loss(opened, family, method):
    """Of T5, and of causal models, whose prompt passes through them once for the whole batch."""
    session, rows = opened(family, method)
    batch = make_batch(session.codec, rows[:5]).inputs
    assert session.shared_prefix == (0 if family == "t5" or method == "lora" else len(session.codec.prompt_ids))
    (loss,) = batch_losses(session.model, batch, session.shared_prefix, 1)
    plain = session.model(**{name: tensor for name, tensor in batch.items() if name != "targets"}).loss
    tolerance = EXACT if family == "t5" else CLOSE  # transformers' causal loss is computed in float32
    torch.testing.assert_close(loss, plain.to(loss.dtype), **tolerance)
    for ours, theirs in zip(gradients(session, loss), gradients(session, plain), strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)
        assert ours.abs().max() > 0


def test_the_prompt_passes_through_a_causal_model_once(opened, monkeypatch):
    session, rows = opened("llama")
    widths, original = [], PromptedEmbedding.forward
    monkeypatch.setattr(
        PromptedEmbedding, "forward", lambda self, ids: widths.append(tuple(ids.shape)) or original(self, ids)
    )
    batch = make_batch(session.codec, rows[:5]).inputs
    batch_losses(session.model, batch, session.shared_prefix, 1)
    assert widths == [(1, 5), (5, batch["input_ids"].shape[1] - 5)]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [False, True])
def test_t5s_attention_with_less_arithmetic(masked, implementation):
    plain = make_model("t5").double().requires_grad_(False).train(False)
    short = patch_attention_and_dropout(copy.deepcopy(plain))
    assert {type(block.layer[1].EncDecAttention) for block in short.get_decoder().block} == {ShortTargetCrossAttention}
    assert {type(block.layer[0].SelfAttention) for block in short.get_encoder().block} == {MaskedBiasAttention}
    short.set_attn_implementation(implementation)
    torch.manual_seed(0)
    source = torch.randn(3, 11, 32, dtype=torch.double, requires_grad=True)
    mask = torch.ones(3, 11, dtype=torch.long)
    if masked:
        mask[1, 6:], mask[2, 3:] = 0, 0
    labels = torch.randint(2, 300, (3, 4))
    outputs = [model(inputs_embeds=source, attention_mask=mask, labels=labels) for model in (plain, short)]
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, **EXACT)
    torch.testing.assert_close(*(torch.autograd.grad(output.loss, source)[0] for output in outputs), **EXACT)
    ids = torch.randint(2, 300, (3, 11))
    written = [
        model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
        for model in (plain, short)
    ]
    assert torch.equal(*written)


def test_lora_keeps_the_cross_attention_that_it_adapts(opened, monkeypatch):
    """Its projections are more than a matrix, so they are applied as the model does."""
    session, rows = opened("t5", "lora")
    batch = make_batch(session.codec, rows[:4]).inputs
    loss = batch_losses(session.model, batch, 0, 1)
    for module in session.model.modules():
        if isinstance(module, ShortTargetCrossAttention):
            module.__class__ = ShortTargetCrossAttention.__mro__[1]
    torch.testing.assert_close(loss, batch_losses(session.model, batch, 0, 1), **EXACT)


@pytest.mark.parametrize("runs", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_step_compiles_into_one_graph(make_config, family, runs):
    """Traced without a break, so that a CUDA graph can hold the whole step. The backend here generates no code."""
    torch._dynamo.reset()
    sessions = open_sessions([make_config(family, "adept", model_dropout=0, seed=seed) for seed in range(runs)])
    rows = sessions[0].codec.encode(load_data(sessions[0].task, sessions[0].config).train)
    batches = [make_batch(session.codec, rows[:4]).inputs for session in sessions]
    stack, parameters = Stack(sessions), [p for session in sessions for p in session.trainables.values()]
    computed = []
    for each in (batch_losses, torch.compile(batch_losses, backend="aot_eager", fullgraph=True)):
        sessions[0].batch_losses = each
        losses = stack.losses(batches)
        computed.append((losses, torch.autograd.grad(losses.sum(), parameters)))
    torch.testing.assert_close(*computed)


@pytest.mark.parametrize("method", ["pt", "dept", "adept", "dept_relu"])
@pytest.mark.parametrize("family", ["t5", "llama"])
def test_batches_of_a_shape_are_compiled_once(make_config, family, method):
    """What a module remembers of the batch before (DePT: where its next token lies) is neither a reason to compile
    again nor an input.
    """
    torch._dynamo.reset()
    session = open_session(make_config(family, method, model_dropout=0))
    rows = session.codec.encode(load_data(session.task, session.config).train)
    counter = CompileCounter()
    session.batch_losses = torch.compile(batch_losses, backend=counter, fullgraph=True)
    stack, inputs = Stack([session]), make_batch(session.codec, rows[:4]).inputs
    losses = [stack.losses([inputs]).item() for _ in range(3)]
    assert counter.frame_count == 1
    assert losses == [losses[0]] * 3


@pytest.mark.slow
def test_a_compiled_run_is_a_run(make_config, tmp_path):
    """With inductor's generated code, on which a run's few shapes cost most of the time."""
    fields = {
        "model_dropout": 0,
        "scoring": "likelihood",
        "prompt_lr": 0.03,
        "eps": 1e-2,
        "steps": 2,
        "max_source_len": 16,
    }
    plain = run(make_config("t5", "pt", **fields, results_dir=str(tmp_path / "plain")))
    record = run(make_config("t5", "pt", **fields, compile=True))
    assert record["run_id"] == plain["run_id"]  # it is a matter of speed
    for ours, theirs in zip(record["history"], plain["history"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)


def test_batches_of_an_epoch_have_few_widths(opened):
    """Multiples of 8, so that few shapes are compiled or recorded as graphs; and little padding."""
    session, rows = opened("t5", max_source_len=64, compile=True)
    batches = list(itertools.islice(training_batches(session.codec, rows * 10, session.config), 60))
    widths = {batch.inputs["input_ids"].shape[1] for batch in batches}
    assert all(width % 8 == 0 for width in widths)
    cells = sum(batch.inputs["input_ids"].numel() for batch in batches)
    assert sum(batch.tokens for batch in batches) / cells > 0.85


@pytest.mark.parametrize("family", FAMILIES)
def test_an_eager_batch_on_a_cpu_is_as_wide_as_its_longest_row(opened, family):
    session, rows = opened(family)
    for batch in (make_batch(session.codec, rows[:5]).inputs, session.codec.source_batch(rows[:5])):
        assert batch["attention_mask"].sum(1).max() == batch["input_ids"].shape[1]


# Evaluation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", ["generate", "likelihood"])
@pytest.mark.parametrize("method", ["adept", "dept_relu"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folded_evaluation_says_the_same(opened, family, method, scoring):
    live, rows = opened(family, method, scoring=scoring)
    folded, _ = opened(family, method, scoring=scoring, fold=True)
    hooks = [m for m in folded.model.modules() if isinstance(m, PromptedEmbedding)]
    before = [(hook.base, hook.offset) for hook in hooks]
    assert predict(folded, rows) == predict(live, rows)
    assert [(hook.base, hook.offset) for hook in hooks] == before  # training goes on with the network


def test_a_folded_evaluation_does_not_run_the_network(opened, monkeypatch):
    folded, rows = opened("t5", fold=True)
    calls, (hook,) = [], [m for m in folded.model.modules() if isinstance(m, PromptedEmbedding)]
    hook.offset.register_forward_hook(lambda *_: calls.append(1))
    predict(folded, rows)
    assert len(calls) == 1  # over the vocabulary, 328 rows


def test_evaluation_batches_have_little_padding(opened, monkeypatch):
    session, _ = opened("t5", eval_batch_size=3)
    lengths = [35, 34, 34, 33, 25, 15, 15, 8]  # of prompt and source
    assert list(evaluation_batches(range(8), lengths, session)) == [[0, 1, 2], [3], [4], [5, 6], [7]]
    monkeypatch.setitem(LEAST_FULL, "cpu", 0.5)
    assert list(evaluation_batches(range(8), lengths, session)) == [[0, 1, 2], [3, 4], [5, 6, 7]]
    sampled = dataclasses.replace(session.task, sampling=Sampling(temperature=0.6, top_p=0.95, samples=1))
    monkeypatch.setattr(session, "task", sampled)
    assert list(evaluation_batches(range(8), lengths, session)) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert list(evaluation_batches([], [], session)) == []
    session.capabilities = dataclasses.replace(session.capabilities, ignores_left_padding=False)
    assert list(evaluation_batches(range(8), lengths, session)) == [[0], [1, 2], [3], [4], [5, 6], [7]]


def test_the_source_is_read_once_and_generation_ends_with_the_longest_label(opened, monkeypatch):
    session, rows = opened("t5", scoring="generate")
    monkeypatch.setitem(LEAST_FULL, "cpu", 0.0)  # one batch
    calls = []
    session.model.get_encoder().register_forward_hook(lambda *_: calls.append("source"))
    session.model.get_decoder().register_forward_hook(lambda *_: calls.append("target"))
    predict(session, rows[:6])
    longest = max(len(session.codec.target_ids(label)) for label in session.task.labels)
    assert calls.count("source") == 1 and calls.count("target") <= longest + 1


# bf16 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_gradients_point_where_fp32_gradients_do(make_config, family):
    flat = []
    for precision in ("fp32", "bf16"):
        session = open_session(make_config(family, "adept", model_dropout=0, precision=precision))
        with torch.no_grad():
            for name, parameter in session.trainables.items():
                if name.endswith("w_up"):
                    parameter.add_(torch.linspace(-0.1, 0.1, parameter.numel()).view(parameter.shape))
        rows = session.codec.encode(load_data(session.task, session.config).train)
        (loss,) = Stack([session]).losses([make_batch(session.codec, rows[:8]).inputs])
        assert loss.dtype == torch.float32
        flat.append([gradient.flatten() for gradient in gradients(session, loss)])
    for ours, theirs in zip(*flat, strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99
