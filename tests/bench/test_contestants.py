"""The released code's way computes the same as ours; rows, padding and lengths are as described."""

import pytest
import torch
from tiny_bench import TINY, open_sessions

from adept.bench.profiles import PROFILES
from adept.bench.released import released_predict
from adept.bench.synthetic import synthetic_examples
from adept.data.batches import make_batch
from adept.training.evaluation import predict
from adept.training.stack import Stack

pytestmark = pytest.mark.usefixtures("tiny_bench")


@pytest.mark.parametrize("name", TINY)
def test_loss_and_gradients_equal_those_of_the_released_way(name):
    """The goal of the speed work's numerics: 1e-5 in fp32 on the same examples."""
    released, ours = open_sessions(name, "released", "ours")
    rows = synthetic_examples(PROFILES["rte"], 9, ours)
    with torch.no_grad():
        for a, b in zip(released.trainables.values(), ours.trainables.values(), strict=True):
            a.add_(0.1 * torch.randn(a.shape, generator=torch.Generator().manual_seed(0)))
            b.copy_(a)
    (theirs,), (mine,) = (Stack([s]).losses([make_batch(s.codec, rows).inputs]) for s in (released, ours))
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    pairs = zip(
        *(torch.autograd.grad(loss, list(s.trainables.values())) for loss, s in ((theirs, released), (mine, ours))),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * a.abs().max().item())
        assert a.abs().max() > 0


@pytest.mark.parametrize("name", TINY)
def test_both_ways_answer_the_same_strings(name):
    released, ours = open_sessions(name, "released", "ours")
    rows = synthetic_examples(PROFILES["rte"], 9, ours)
    answers = released_predict(released, rows)
    assert answers == predict(ours, rows)
    assert answers.count("0") > len(answers) / 2  # most of the time the random model says "0", and stops


def test_the_released_way_is_padded_and_eager():
    released, ours = open_sessions("t5-small", "released", "ours")
    rows = synthetic_examples(PROFILES["rte"], 6, ours)
    inputs = released.codec.train_batch(rows)
    assert inputs["input_ids"].shape == (6, 5 + 24) and inputs["labels"].shape == (6, 4)
    assert released.model.config._attn_implementation == "eager" and ours.model.config._attn_implementation == "sdpa"
    causal, _ = open_sessions("llama3-8b", "released", "ours")
    inputs = causal.codec.train_batch(rows)
    assert inputs["labels"].shape == inputs["input_ids"].shape == (6, 5 + 24 + 4) and "logits_to_keep" not in inputs


def test_synthetic_rows_have_the_profiles_lengths():
    (ours,) = open_sessions("t5-small", "ours")
    lengths = [len(row.source_ids) for row in synthetic_examples(PROFILES["rte"], 4000, ours)]
    deciles = torch.tensor(lengths, dtype=torch.float).quantile(torch.linspace(0, 1, 11)).tolist()
    assert deciles == pytest.approx(PROFILES["rte"].deciles, abs=1)
