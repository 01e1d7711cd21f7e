"""Diff pruning: the masks written out, the penalty, and the second run that goes on with the largest differences."""

import copy
import itertools

import pytest
import torch
from conftest import runnable
from explicit_formulas import examples, loss_of
from teacher_forcing import check_cached_generation

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.data.batches import make_batch
from adept.methods.differences import Difference, RelaxedDifference, differences
from adept.models.loading import load_model, shape_only_model
from adept.runs.adapter import read_weights
from adept.runs.layout import run_folder
from adept.serving.load import load
from adept.training.loop import run
from adept.training.losses import batch_losses
from adept.training.optim import make_optimizer, parameter_groups
from adept.training.run import Run
from adept.training.session import open_session, open_sessions
from adept.training.step import StepInput, train_step

SERVED = [family for _, family in runnable(["diff_pruning"])]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
N, TENSORS = 222_903_552, 36 * 4 + 24 * 2 + 62 + 2 + 1
"""Of T5-base: projections of attentions and feed-forwards, norms, relative biases, and the table, which is one."""


@pytest.fixture
def filled(make_config):
    """filled(family, **fields): a session with random differences and masks of all sizes, and its rows."""

    def make(family, **fields):
        session = open_session(make_config(family, "diff_pruning", model_dropout=0, **fields))
        torch.manual_seed(7)
        with torch.no_grad():
            for name, parameter in session.trainables.items():
                parameter.normal_(std=0.05) if name.endswith("difference") else parameter.uniform_(-2, 3)
        session.model.eval()
        return session, examples(session)

    return make


def z(mask, u):
    return (3 * torch.sigmoid(torch.tensor(u / (1 - u)).log() + mask) - 1.5).clip(0, 1)


def plain_loss(session, rows, u) -> torch.Tensor:
    """The loss of a plain model whose weights are the frozen ones plus their masked differences."""
    plain, _ = load_model(session.config.model)
    own = dict(session.model.named_parameters())
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            owner, _, last = name.rpartition(".")
            parts = {
                part: own[f"{owner}.parametrizations.{last}.0.{part}"] for part in ("difference", "mask", "tensor_mask")
            }
            weight += z(parts["tensor_mask"], u) * z(parts["mask"], u) * parts["difference"]
    batch = make_batch(session.codec, rows).inputs
    return batch_losses(plain.eval(), batch, 0, 1)[0]


def penalty_of(session) -> float:
    return 1.25e-7 * sum(
        torch.sigmoid(p.detach()).sum().item() for name, p in session.trainables.items() if name.endswith("mask")
    )


# Counts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fields", "count"), [({}, 2 * N + TENSORS), ({"stage": "fixed"}, 1_114_518)], ids=str)
def test_parameters_on_t5_base(fields, count):
    method = resolve({"task": "rte", "method": "diff_pruning", "model": "t5-base", **fields}).method_options
    model = method.adapt(shape_only_model("t5-base"), None)
    assert method.count_trained(model) == count
    assert len(list(differences(model))) == TENSORS


# The relaxed stage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", SERVED)
def test_the_start_is_the_model_itself_with_open_masks(make_config, family):
    session = open_session(make_config(family, "diff_pruning", model_dropout=0))
    plain = open_session(make_config(family, "zero_shot", model_dropout=0))
    rows = examples(session)
    assert all(p.unique().item() == 5 for name, p in session.trainables.items() if name.endswith("mask"))
    expected = loss_of(plain, rows) + penalty_of(session)
    torch.testing.assert_close(loss_of(session, rows).detach(), expected, **CLOSE)


@pytest.mark.parametrize("family", SERVED)
def test_the_loss_is_that_of_the_formula_written_out(filled, family, monkeypatch):
    """In training with the masks that are drawn, at evaluation with those in the middle; and the penalty."""
    session, rows = filled(family)
    with torch.no_grad():
        loss = loss_of(session, rows)
    torch.testing.assert_close(loss, plain_loss(session, rows, 0.5).detach() + penalty_of(session), **CLOSE)
    monkeypatch.setattr(torch, "rand_like", lambda mask: torch.full_like(mask, 0.3))
    session.model.train()
    loss, other = loss_of(session, rows).detach(), loss
    torch.testing.assert_close(loss, plain_loss(session, rows, 0.3).detach() + penalty_of(session), **CLOSE)
    assert (loss - other).abs() > 1e-3


def test_a_steps_penalty_counts_once_however_many_batches_it_has(filled):
    session, rows = filled("t5", grad_accum=2, lr=0.0, mask_lr=0.0)
    optimizer = make_optimizer(parameter_groups(session.model, session.method.learning_rates()), session.config)
    batches = tuple(make_batch(session.codec, some) for some in (rows[:2], rows[2:6]))
    (result,) = train_step([StepInput(session, optimizer, batches, 1.0)])
    expected = plain_loss(session, rows[:6], 0.5).detach() + penalty_of(session)
    torch.testing.assert_close(result.loss, expected, **CLOSE)


@pytest.mark.parametrize("family", SERVED)
def test_every_difference_and_mask_has_a_gradient_from_the_first_step_on(make_config, family):
    session = open_session(make_config(family, "diff_pruning"))
    session.model.train()
    loss_of(session, examples(session)).backward()
    assert all(parameter.grad.any() for parameter in session.trainables.values())
    assert not any(p.grad is not None for name, p in session.model.named_parameters() if name.endswith("original"))


def test_tied_weights_share_one_drawn_difference(filled):
    session, _ = filled("t5")
    model = session.model.train()
    for difference in differences(model):
        difference.draw()
    assert model.shared.weight.equal(model.lm_head.weight) and model.shared.weight.equal(
        model.encoder.embed_tokens.weight
    )
    drawn = model.shared.weight
    next(differences(model)).draw()
    assert not drawn.equal(model.shared.weight)


def test_checkpointed_activations_draw_the_same_masks(filled):
    computed = []
    for chosen in (False, True):
        session, rows = filled("t5", checkpoint_activations=chosen)
        session.model.train()
        torch.manual_seed(3)
        loss = loss_of(session, rows)
        computed.append([loss, *torch.autograd.grad(loss, list(session.trainables.values()))])
    assert all(map(torch.equal, *computed))


@pytest.mark.parametrize("family", SERVED)
def test_cached_generation_of_a_padded_batch_is_teacher_forcing_of_single_rows(filled, family):
    check_cached_generation(*filled(family))


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_bf16_is_fp32_up_to_its_rounding(filled, family):
    losses = {}
    for precision in ("fp32", "bf16"):
        session, rows = filled(family, precision=precision)
        losses[precision] = loss_of(session, rows).item()
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=3e-2)


# The fixed stage ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_stages(make_config, monkeypatch):
    """two_stages(family) -> (the relaxed run's weights, those at the fixed run's start, its weights, its record)."""

    def make(family):
        relaxed = make_config(family, "diff_pruning", lr=1e-2, mask_lr=2.0, scoring="likelihood")
        first = run(relaxed)
        starts, original = [], Run.between_steps

        def spy(self):
            starts.append({name: p.detach().clone() for name, p in self.session.trainables.items()})
            original(self)

        monkeypatch.setattr(Run, "between_steps", spy)
        fields = {"stage": "fixed", "sparsity": 0.01, "init_from": first["run_id"], "steps": 3, "lr": 1e-2}
        fixed = make_config(family, "diff_pruning", **fields, scoring="likelihood")
        second = run(fixed)
        folder = run_folder(relaxed.results_dir, first["run_id"]), run_folder(fixed.results_dir, second["run_id"])
        return read_weights(folder[0]), starts[0], read_weights(folder[1]), second, fixed

    return make


@pytest.mark.parametrize("family", SERVED)
def test_the_largest_differences_are_kept_and_they_alone_are_trained(two_stages, family):
    relaxed, start, trained, record, config = two_stages(family)
    masked = {
        name: z(relaxed[name.replace(".difference", ".tensor_mask")], 0.5)
        * z(relaxed[name.replace(".difference", ".mask")], 0.5)
        * weight
        for name, weight in relaxed.items()
        if name.endswith(".difference")
    }
    sizes = sorted(itertools.chain(*(difference.abs().flatten().tolist() for difference in masked.values())))
    count = round(0.01 * len(sizes))
    assert record["trainable_params"] == count == sum(int(weight.count_nonzero()) for weight in start.values())
    assert start.keys() == trained.keys() == masked.keys()
    least = sizes[-count]
    for name, difference in masked.items():
        kept = start[name] != 0
        torch.testing.assert_close(start[name], difference * kept)
        assert kept[difference.abs() > least * 1.0001].all() and not kept[difference.abs() < least * 0.9999].any()
        assert torch.equal(trained[name] != 0, kept)
    assert record["best_step"] > 0 and any(not torch.equal(start[name], trained[name]) for name in start)
    session = load(record["run_id"], results_dir=config.results_dir)
    plain, _ = load_model(config.model)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            owner, _, last = name.rpartition(".")
            weight += trained[f"{owner}.parametrizations.{last}.0.difference"]
    batch = make_batch(session.codec, examples(session)).inputs
    torch.testing.assert_close(batch_losses(session.model, batch, 0, 1), batch_losses(plain, batch, 0, 1), **CLOSE)


def test_a_fixed_run_without_a_relaxed_one_is_one_line(make_config):
    with pytest.raises(UserError, match="has no difference to train with --stage fixed: --init_from must name a run"):
        run(make_config("t5", "diff_pruning", stage="fixed"))
    other = run(make_config("t5", "lora", steps=1))
    with pytest.raises(UserError, match=r"the adapter in .* does not fit: it has, but this method and model lack, "):
        run(make_config("t5", "diff_pruning", stage="fixed", init_from=other["run_id"]))


# Other runs -----------------------------------------------------------------------------------------------------------


def test_a_run_on_the_same_model_is_untouched(make_config):
    plain = make_config("t5", "lora", lora_dropout=0)
    alone = open_session(plain)
    for order in ([make_config("t5", "diff_pruning"), plain], [plain, make_config("t5", "diff_pruning")]):
        other = {session.config.method: session for session in open_sessions(order)}["lora"]
        assert [type(m) for m in other.model.modules()] == [type(m) for m in alone.model.modules()]
        losses = [loss_of(session, examples(session)) for session in (other, alone) if session.model.eval()]
        assert torch.equal(*losses)


@pytest.mark.parametrize("stage", [RelaxedDifference, Difference])
def test_a_copy_has_differences_of_its_own(filled, stage):
    session, rows = filled("t5", stage="relaxed" if stage is RelaxedDifference else "fixed")
    with torch.no_grad():
        before, twin = loss_of(session, rows), copy.deepcopy(session.model)
        for parameter in session.trainables.values():
            parameter.zero_()
        changed, session.model = loss_of(session, rows), twin
        assert torch.equal(loss_of(session, rows), before) and not torch.equal(changed, before)
    assert {type(difference) for difference in differences(twin)} == {stage}
