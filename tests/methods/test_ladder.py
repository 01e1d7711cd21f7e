"""Ladder side tuning: the side network written out, where it starts, and that no gradient reaches T5."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from explicit_formulas import examples, loss_of
from teacher_forcing import check_beams, check_cached_generation
from tiny_families import build
from transformers.models.t5.modeling_t5 import T5Attention

from adept.base.errors import UserError
from adept.bench.memory import count_step
from adept.config.layers import resolve
from adept.data.batches import make_batch
from adept.data.dataset import load_data
from adept.methods import METHODS
from adept.models.ladder import add_ladder
from adept.models.likelihood import choice_logits
from adept.models.loading import load_model, shape_only_model
from adept.runs.adapter import read_weights
from adept.training.evaluation import predict
from adept.training.loop import run
from adept.training.losses import batch_losses
from adept.training.run import Run
from adept.training.session import open_session, open_sessions
from adept.training.stack import Stack
from adept.training.start import start_parameters

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
BOTH = {"side_blocks": "0,1"}


@pytest.fixture
def filled(make_config):
    """filled(**fields): a session whose ladder is random, and its rows."""

    def make(**fields):
        session = open_session(make_config("t5", "lst", **{"model_dropout": 0, **BOTH, **fields}))
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in session.trainables.values():
                parameter.normal_(std=0.5)
        session.model.eval()
        return session, examples(session)

    return make


# Counts ---------------------------------------------------------------------------------------------------------------


def test_parameters_on_t5_base():
    method = resolve({"task": "rte", "method": "lst", "model": "t5-base"}).method_options
    adapted = method.adapt(shape_only_model("t5-base"), None)
    d, w, f, blocks = 768, 96, 384, 9
    block = 4 * w * w + 2 * w * f + 2 * w  # an attention, a feed-forward, their norms
    each = (1 + blocks) * (d * w + w) + 32 * 12 + w + blocks  # projections, relative bias, norm, gates
    count = 2 * each + blocks * (block + block + 4 * w * w + w) + w * d + d
    assert count == 3_878_706
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == count


# What is computed -----------------------------------------------------------------------------------------------------


def rms(x, norm):
    return norm.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def attend(part, x, source, bias, causal):
    """[L, w]: T5's attention of one row, head by head."""
    out = []
    for head in range(4):
        rows = slice(head * part.key_value_proj_dim, (head + 1) * part.key_value_proj_dim)
        scores = (x @ part.q.weight[rows].T) @ (source @ part.k.weight[rows].T).T + bias[head]
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        out.append(scores.softmax(-1) @ (source @ part.v.weight[rows].T))
    return torch.cat(out, dim=-1) @ part.o.weight.T


def explicit_side(side, embeddings, outputs, source=None):
    """[L, w]: the last state of a side stack beside a stack of T5, of one row. outputs: of T5's blocks."""
    h = embeddings @ side.down.weight.T + side.down.bias
    length, causal = len(h), source is not None
    distance = torch.arange(length)[None] - torch.arange(length)[:, None]
    first = side.blocks[0].layer[0].SelfAttention
    bias = first.relative_attention_bias(T5Attention._relative_position_bucket(distance, bidirectional=not causal))
    for gate, link, block, number in zip(side.gates, side.links, side.blocks, side.numbers, strict=True):
        mu = 1 / (1 + torch.exp(-gate / 0.1))
        h = mu * h + (1 - mu) * (outputs[number] @ link.weight.T + link.bias)
        own, *crossing, feed = block.layer
        x = rms(h, own.layer_norm)
        h = h + attend(own.SelfAttention, x, x, bias.permute(2, 0, 1), causal)
        for layer in crossing:
            x = rms(h, layer.layer_norm)
            h = h + attend(layer.EncDecAttention, x, source, torch.zeros(4, 1, 1), False)
        x = rms(h, feed.layer_norm)
        h = h + (x @ feed.DenseReluDense.wi.weight.T).relu() @ feed.DenseReluDense.wo.weight.T
    return rms(h, side.norm)


def recorded_blocks(stack, found: list):
    """Makes each block of a plain stack append its output [L, D] of the one row; the first, its input before."""
    for number, block in enumerate(stack.block):
        if number == 0:
            block.register_forward_pre_hook(lambda _, args: found.append(args[0][0]))
        block.register_forward_hook(lambda _, __, output: found.append(output[0][0]))


@torch.no_grad()
def explicit_logits(session, row):
    """[L, V]: the logits of one row's target."""
    plain, ladder = (
        transformers.AutoModelForSeq2SeqLM.from_pretrained(session.config.model).eval(),
        session.model.ladder,
    )
    read, written = [], []
    recorded_blocks(plain.encoder, read)
    recorded_blocks(plain.decoder, written)
    decoder = torch.tensor([[0, *row.target_ids[:-1]]])
    plain(input_ids=torch.tensor([row.source_ids]), decoder_input_ids=decoder, use_cache=False)
    source = explicit_side(ladder.encoder, read[0], read[1:])
    states = explicit_side(ladder.decoder, written[0], written[1:], source) @ ladder.up.weight.T + ladder.up.bias
    return states * 32**-0.5 @ plain.lm_head.weight.T


@pytest.mark.parametrize("blocks", ["0,1", "1"])
def test_the_loss_is_that_of_the_side_network_written_out(filled, blocks):
    session, rows = filled(side_blocks=blocks)
    logits = torch.cat([explicit_logits(session, row) for row in rows])
    expected = F.cross_entropy(logits, torch.tensor([i for row in rows for i in row.target_ids]))
    torch.testing.assert_close(loss_of(session, rows).detach(), expected, **CLOSE)


def test_no_gradient_reaches_t5(filled):
    """Its blocks compute no graph, and every weight of the ladder gets a gradient."""
    session, rows = filled(model_dropout=0.1)
    graphs, session.model = [], session.model.train()
    for stack in (session.model.encoder, session.model.decoder):
        for block in stack.block:
            block.register_forward_hook(lambda _, __, output: graphs.append(output[0].requires_grad))
    loss_of(session, rows).backward()
    assert graphs == [False] * 4
    got = {name for name, p in session.model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert got == set(session.trainables) and all(name.startswith("ladder.") for name in got)


def test_less_is_kept_for_the_backward_pass_than_by_lora_and_full(make_config):
    saved = {}
    for method, fields in (("lst", BOTH), ("lora", {}), ("full", {})):
        session = open_session(make_config("t5", method, **fields))
        stack, batch = Stack([session]), make_batch(session.codec, examples(session)).inputs
        session.model.train()
        saved[method] = count_step(session.model, lambda: stack.losses([batch]).sum()).saved  # noqa: B023
    assert saved["lst"] < saved["lora"] < saved["full"]


# Answers --------------------------------------------------------------------------------------------------------------


def test_cached_generation_of_a_padded_batch_is_teacher_forcing_of_single_rows(filled):
    session, rows = filled()
    check_cached_generation(session, rows)
    check_beams(session, rows)


def test_label_scores_do_not_depend_on_padding(filled):
    session, rows = filled()
    choices = torch.tensor([[5, 6, 1], [7, 8, 1]])
    with torch.no_grad():
        batch, *single = (
            choice_logits(session.model, session.codec.source_batch(some), choices, with_cache=False)
            for some in (rows[:4], *([row] for row in rows[:4]))
        )
    torch.testing.assert_close(batch, torch.cat(single), rtol=1e-3, atol=1e-4)
    logits = explicit_logits(session, rows[0])
    expected = choice_logits(
        session.model, session.codec.source_batch(rows[:1]), torch.tensor([rows[0].target_ids]), with_cache=False
    )
    torch.testing.assert_close(logits[None], expected, **CLOSE)


def test_bf16_is_fp32_up_to_its_rounding(filled):
    losses = {}
    for precision in ("fp32", "bf16"):
        session, rows = filled(precision=precision)
        assert {p.dtype for p in session.trainables.values()} == {torch.float32}
        losses[precision] = loss_of(session, rows).item()
        assert len(predict(session, rows)) == len(rows)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=3e-2)


def with_gradients(session, rows) -> list[torch.Tensor]:
    """The loss, and the gradient of each trained parameter."""
    loss = loss_of(session, rows)
    return [loss, *torch.autograd.grad(loss, list(session.trainables.values()))]


def test_checkpointed_activations_compute_the_same(filled):
    computed = [with_gradients(*filled(checkpoint_activations=chosen)) for chosen in (False, True)]
    assert all(map(torch.equal, *computed))


@pytest.mark.long  # the two stacks of hooks are traced for half a minute
def test_the_step_compiles_into_one_graph(filled):
    torch._dynamo.reset()
    session, rows = filled()
    plain = with_gradients(session, rows)
    session.batch_losses = torch.compile(batch_losses, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(with_gradients(session, rows), plain)


# The start ------------------------------------------------------------------------------------------------------------


def squared_gradients(model, rows) -> dict[str, torch.Tensor]:
    """{weight of T5: its squared gradients}, summed over the rows' losses."""
    plain = transformers.AutoModelForSeq2SeqLM.from_pretrained(model).eval()
    total = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
    for row in rows:
        plain.zero_grad()
        plain(input_ids=torch.tensor([row.source_ids]), labels=torch.tensor([row.target_ids])).loss.backward()
        for name, parameter in plain.named_parameters():
            total[name] += parameter.grad.square()
    return total


def best(scores, count):
    return sorted(sorted(range(len(scores)), key=lambda i: -scores[i])[:count])


def test_side_blocks_start_as_the_weights_of_t5_that_matter_most(make_config):
    """The rows and columns with the largest squared gradients over the training rows."""
    session = open_session(make_config("t5", "lst", **BOTH, importance_rows=1000))
    rows = session.codec.encode(load_data(session.task, session.config).train)
    start_parameters(session, rows)
    importance, weights = squared_gradients(session.config.model, rows), dict(session.model.named_parameters())
    kept = best(importance["shared.weight"].sum(0).tolist(), 8)
    for stack, number, layer, part in (("encoder", 1, 0, "SelfAttention"), ("decoder", 0, 1, "EncDecAttention")):
        own, side = f"{stack}.block.{number}.layer.{layer}", f"ladder.{stack}.blocks.{number}.layer.{layer}"
        q, k, v = (importance[f"{own}.{part}.{name}.weight"].sum(1) for name in "qkv")
        heads = [best((q * k * v)[8 * head : 8 * head + 8].tolist(), 2) for head in range(4)]
        inner = [8 * head + i for head, found in enumerate(heads) for i in found]
        for name in "qkv":
            expected = weights[f"{own}.{part}.{name}.weight"][inner][:, kept]
            assert torch.equal(weights[f"{side}.{part}.{name}.weight"], expected)
        assert torch.equal(weights[f"{side}.{part}.o.weight"], weights[f"{own}.{part}.o.weight"][kept][:, inner])
        assert torch.equal(weights[f"{side}.layer_norm.weight"], weights[f"{own}.layer_norm.weight"][kept])
    own, side = "decoder.block.1.layer.2", "ladder.decoder.blocks.1.layer.2"
    units = best(importance[f"{own}.DenseReluDense.wi.weight"].sum(1).tolist(), 16)
    small, large = (f"{prefix}.DenseReluDense" for prefix in (side, own))
    assert torch.equal(weights[f"{small}.wi.weight"], weights[f"{large}.wi.weight"][units][:, kept])
    assert torch.equal(weights[f"{small}.wo.weight"], weights[f"{large}.wo.weight"][kept][:, units])
    bias = "block{}.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert torch.equal(weights["ladder.decoder." + bias.format("s")], weights["decoder." + bias.format("")])
    assert torch.equal(weights["ladder.encoder.norm.weight"], weights["encoder.final_layer_norm.weight"][kept])
    assert not any(p.requires_grad for name, p in weights.items() if not name.startswith("ladder."))


def test_a_ladder_as_wide_as_t5_starts_as_its_blocks(make_config):
    session = open_session(make_config("t5", "lst", **BOTH, side_factor=1))
    start_parameters(session, examples(session))
    for side, stack in ((session.model.ladder.encoder, session.model.encoder),
                        (session.model.ladder.decoder, session.model.decoder)):  # fmt: skip
        own = dict(stack.block.named_parameters())
        assert all(torch.equal(parameter, own[name]) for name, parameter in side.blocks.named_parameters())


def test_the_projections_start_small_and_the_gates_half_open(make_config):
    session = open_session(make_config("t5", "lst", side_factor=1))
    ladder = session.model.ladder
    projections = [ladder.up, *(p for s in (ladder.encoder, ladder.decoder) for p in (s.down, *s.links))]
    weights = torch.cat([p.weight.detach().flatten() for p in projections])
    assert weights.std().item() == pytest.approx(0.01, rel=0.05) and not any(p.bias.any() for p in projections)
    assert not ladder.encoder.gates.any() and not ladder.decoder.gates.any()


def test_the_start_is_made_once_and_not_where_another_run_gives_it(make_config, monkeypatch):
    starts, original = [], Run.between_steps

    def spy(self):
        starts.append({name: p.detach().clone() for name, p in self.session.trainables.items()})
        original(self)

    monkeypatch.setattr(Run, "between_steps", spy)
    first = run(config := make_config("t5", "lst", steps=2))
    trained = read_weights(config_folder(config, first))
    starts.clear()
    run(make_config("t5", "lst", steps=1, init_from=first["run_id"]))
    assert all(torch.equal(starts[0][name], weight) for name, weight in trained.items())
    starts.clear()
    run(make_config("t5", "lst", steps=1, side_init="random"))
    run(make_config("t5", "lst", steps=1, importance_rows=5))
    random, pruned = starts[0], starts[2]
    assert {name.split(".")[2] for name in random if not torch.equal(random[name], pruned[name])} >= {"blocks"}
    assert torch.equal(random["ladder.up.weight"], pruned["ladder.up.weight"])


def config_folder(config, record):
    from adept.runs.layout import run_folder

    return run_folder(config.results_dir, record["run_id"])


# Other runs and other models ------------------------------------------------------------------------------------------


def test_a_run_on_the_same_model_is_untouched(make_config):
    plain = make_config("t5", "lora", lora_dropout=0)
    alone = open_session(plain)
    for order in ([make_config("t5", "lst"), plain], [plain, make_config("t5", "lst")]):
        other = {session.config.method: session for session in open_sessions(order)}["lora"]
        assert not any("Side" in type(module).__name__ or module._forward_pre_hooks for module in other.model.modules())
        losses = [loss_of(session, examples(session)) for session in (other, alone) if session.model.eval()]
        assert torch.equal(*losses)


def test_a_copy_has_a_ladder_of_its_own(filled):
    session, rows = filled()
    before, twin = loss_of(session, rows), copy.deepcopy(session.model)
    with torch.no_grad():
        for parameter in session.trainables.values():
            parameter.zero_()
    changed = loss_of(session, rows)
    session.model = twin
    assert torch.equal(loss_of(session, rows), before) and not torch.equal(changed, before)


def test_what_does_not_fit_is_one_line(make_config):
    for fields, line in (
        ({"side_factor": 5}, "--side_factor 5 does not divide the model's d_model, 32"),
        ({"side_factor": 16}, "--side_factor 16 does not divide the model's d_kv, 8"),
        ({"side_blocks": "1,2"}, r"--side_blocks names block 2, but the model's stacks have 2, from 0 on"),
    ):
        with pytest.raises(UserError, match=line):
            open_session(make_config("t5", "lst", **fields))
    for blocks in ("2,1", "1,1", "a", "1,", "-1"):
        with pytest.raises(UserError, match="--side_blocks must be ascending block numbers such as 1,2,3, not"):
            make_config("t5", "lst", side_blocks=blocks)
    with pytest.raises(
        UserError, match="method 'lst' runs on encoder-decoder models; LlamaForCausalLM is decoder-only"
    ):
        METHODS["lst"]().adapt(load_model(make_config("llama", "pt").model)[0], None)
    with pytest.raises(UserError, match="method 'lst' has a side network for T5 alone, not for BartForConditional"):
        add_ladder(build("Bart"), 4, [1])
