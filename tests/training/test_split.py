"""A batch in parts without padding has the loss and the gradients of the whole batch."""

import itertools

import pytest
import torch
from conftest import FAMILIES, runnable
from explicit_formulas import fill

from adept.base import distributed
from adept.data.batches import make_batch
from adept.data.dataset import load_data
from adept.data.example import IGNORED
from adept.methods import METHODS
from adept.training import split
from adept.training.losses import batch_losses
from adept.training.session import open_session
from adept.training.split import cheapest_parts, split_batch, split_batch_losses
from adept.training.stack import Stack

EXACT = {"rtol": 1e-9, "atol": 1e-11}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # parts of the family or of the method compute in float32 whatever comes
LOOSE = {"t5": EXACT, "llama": CLOSE, "codegen": CLOSE}


@pytest.fixture
def small_parts(monkeypatch):
    """A part costs so little that rows of different lengths are apart."""
    monkeypatch.setattr(split, "PART_COST", 1)


def open_in_float64(config):
    session = open_session(config)
    session.model.double().train()
    return fill(session), session.codec.encode(load_data(session.task, config).train)


def loss_and_gradients(session, batch, losses):
    session.batch_losses = losses
    torch.manual_seed(0)
    (loss,) = Stack([session]).losses([batch])
    return loss, torch.autograd.grad(loss, list(session.trainables.values()))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("method", "family"), runnable(name for name, method in METHODS.items() if method.rates))
def test_loss_and_gradients_are_those_of_the_whole_batch(make_config, method, family):
    fields = {"model_dropout": 0} | ({"lora_dropout": 0} if method in ("lora", "dora") else {})
    session, rows = open_in_float64(make_config(family, method, **fields))
    whole = make_batch(session.codec, rows[:7]).inputs
    assert len(split_batch(whole, session.shared_prefix)) > 1
    assert session.batch_losses is (batch_losses if method == "diff_pruning" else split_batch_losses)
    session.model.train(method != "diff_pruning")  # its masks are drawn for each pass of a training
    ours, theirs = (loss_and_gradients(session, whole, losses) for losses in (split_batch_losses, batch_losses))
    tolerance = CLOSE if method in ("lst", "dora", "vera") else LOOSE[family]
    torch.testing.assert_close(ours, theirs, **tolerance)
    assert ours[0] > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part_cost", [1, 30])
def test_parts_have_every_row_once_and_no_padding_that_none_of_their_rows_needs(
    make_config, monkeypatch, family, part_cost
):
    monkeypatch.setattr(split, "PART_COST", part_cost)
    session, rows = open_in_float64(make_config(family))
    whole = make_batch(session.codec, rows[:9]).inputs
    parts = split_batch(whole, session.shared_prefix)
    assert all(part["targets"] is whole["targets"] for part in parts)

    def rows_of(batch):
        """(tokens, {column: label}) of each row."""
        columns = batch.get("logits_to_keep", torch.arange(batch["labels"].shape[1])).tolist()
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            known = {c: t for c, t in zip(columns, labels.tolist(), strict=True) if t != IGNORED}
            yield tuple(ids[mask.bool()].tolist()), tuple(known.items())

    assert sorted(row for part in parts for row in rows_of(part)) == sorted(rows_of(whole))
    for part in parts:
        assert part["attention_mask"][:, -1].any() and (part["labels"] != IGNORED).any(0).all()
    different = len({len(ids) for ids, _ in rows_of(whole)})
    assert 1 < len(parts) <= different if part_cost == 1 else 1 <= len(parts) < different


def test_rows_that_are_padded_on_the_left_stay_together():
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    batch = {"input_ids": torch.arange(12).view(3, 4), "attention_mask": mask, "labels": torch.tensor([[1], [2], [3]])}
    (part,) = split_batch({**batch, "targets": torch.tensor([3.0])}, 0)
    assert all(torch.equal(part[name], tensor) for name, tensor in batch.items())


@pytest.mark.parametrize("part_cost", [0, 1, 7, 40, 1000])
def test_the_parts_are_the_cheapest_of_all(part_cost):
    generator = torch.Generator().manual_seed(part_cost)

    def cost(widths, sizes):
        ends = itertools.accumulate(sizes)
        return sum(size * widths[end - 1] + part_cost for size, end in zip(sizes, ends, strict=True))

    def partitions(count):
        if count == 0:
            yield []
        for first in range(1, count + 1):
            yield from ([first, *rest] for rest in partitions(count - first))

    for count in range(1, 9):
        widths = sorted(torch.randint(1, 60, (count,), generator=generator).tolist())
        sizes = cheapest_parts(widths, part_cost)
        assert sum(sizes) == count
        assert cost(widths, sizes) == min(cost(widths, each) for each in partitions(count))


@pytest.mark.usefixtures("small_parts")
def test_a_penalty_is_added_once(make_config, monkeypatch):
    """Method.extra_loss() is of the batch, not of each part."""
    session, rows = open_in_float64(make_config("t5", "lora", lora_dropout=0, model_dropout=0))
    batch = make_batch(session.codec, rows[:7]).inputs
    assert len(split_batch(batch, 0)) > 1
    plain = Stack([session]).losses([batch])
    monkeypatch.setattr(type(session.method), "extra_loss", lambda *_: torch.tensor(0.5, dtype=torch.float64))
    torch.testing.assert_close(Stack([session]).losses([batch]), plain + 0.5)


def test_whole_batches_where_they_are_compiled_or_shared_out(make_config, monkeypatch):
    assert open_session(make_config()).batch_losses is split_batch_losses
    assert open_session(make_config(compile=True)).batch_losses is not split_batch_losses
    monkeypatch.setattr(distributed, "WORLD", 2)
    assert open_session(make_config()).batch_losses is batch_losses


@pytest.mark.usefixtures("small_parts")
def test_stacked_runs_pass_together(make_config):
    """As whole batches; alone, as parts."""
    opened = [open_in_float64(make_config("t5", "adept", model_dropout=0, seed=seed)) for seed in (1, 2)]
    batches = [make_batch(session.codec, rows[:7]).inputs for session, rows in opened]
    sessions = [session for session, _ in opened]
    alone = torch.cat([Stack([s]).losses([b]) for s, b in zip(sessions, batches, strict=True)])
    torch.testing.assert_close(Stack(sessions).losses(batches), alone, **EXACT)
