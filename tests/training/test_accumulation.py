"""A step's loss and gradient do not depend on how its rows are cut into passes (--grad_accum)."""

import pytest
import torch

from adept.data.batches import make_batch
from adept.data.example import Example
from adept.training.loop import run
from adept.training.session import open_session
from adept.training.step import StepInput, train_step

SOURCES = ["question: which town ?", "question: who ? context: the old man"]
ROWS = [Example(str(i), SOURCES[i % 2], "the town " * (1 + 3 * (i % 3)), ()) for i in range(8)]
WAYS = [(8, 1), (4, 2), (2, 4), (1, 8)]


def step(make_config, family, size, count, seeds=(0,), **fields):
    """[(loss, {name: gradient})] of one step on ROWS, cut into `count` passes of `size`, for runs of these seeds"""
    inputs = []
    for seed in seeds:
        config = make_config(
            family,
            task="squad",
            batch_size=size,
            grad_accum=count,
            model_dropout=0,
            max_grad_norm=0,
            seed=seed,
            **fields,
        )
        session = open_session(config)
        examples = session.codec.encode(ROWS)
        batches = tuple(make_batch(session.codec, examples[i : i + size]) for i in range(0, 8, size))
        inputs.append(StepInput(session, torch.optim.SGD(session.trainables.values(), lr=1.0), batches, 1.0))
        inputs[-1].optimizer.param_groups[0]["initial_lr"] = 1.0
    before = [{name: p.detach().clone() for name, p in each.session.trainables.items()} for each in inputs]
    results = train_step(inputs)
    gradients = [
        {name: old[name] - p.detach() for name, p in each.session.trainables.items()}
        for old, each in zip(before, inputs, strict=True)
    ]
    return [(float(result.loss), gradient) for result, gradient in zip(results, gradients, strict=True)]


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_eight_rows_have_one_loss_and_one_gradient_however_they_are_cut(make_config, family):
    (whole,) = step(make_config, family, 8, 1)
    for size, count in WAYS[1:]:
        (parts,) = step(make_config, family, size, count)
        assert parts[0] == pytest.approx(whole[0], rel=1e-6)
        for name, gradient in whole[1].items():
            torch.testing.assert_close(parts[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_sum_over_all_target_tokens_divided_by_their_number(make_config):
    ((loss, _),) = step(make_config, "t5", 2, 4)
    session = open_session(make_config("t5", task="squad", model_dropout=0, seed=0))
    examples = session.codec.encode(ROWS)
    total = count = 0
    for example in examples:
        batch = session.codec.train_batch([example])
        total = total + session.model(**batch).loss.item() * len(example.target_ids)
        count += len(example.target_ids)
    assert loss == pytest.approx(total / count, rel=1e-6)


def test_the_released_code_takes_the_mean_of_the_passes_means(make_config):
    losses = {way: step(make_config, "t5", *way, accumulate="batches")[0][0] for way in WAYS}
    session = open_session(make_config("t5", task="squad", model_dropout=0, seed=0))
    alone = [session.model(**session.codec.train_batch([row])).loss.item() for row in session.codec.encode(ROWS)]
    assert losses[1, 8] == pytest.approx(sum(alone) / 8, rel=1e-6)
    assert losses[8, 1] == pytest.approx(step(make_config, "t5", 8, 1)[0][0], rel=1e-7)
    assert abs(losses[1, 8] - losses[8, 1]) > 1e-3
    assert make_config(task="rte").accumulate == "tokens"
    assert make_config(task="rte", protocol="official").accumulate == "batches"


def test_stacked_runs_accumulate_as_each_does_alone(make_config):
    together = step(make_config, "llama", 2, 4, seeds=(0, 1))
    for seed, (loss, gradient) in enumerate(together):
        ((expected, alone),) = step(make_config, "llama", 2, 4, seeds=(seed,))
        assert loss == pytest.approx(expected, rel=1e-5)
        for name, value in alone.items():
            torch.testing.assert_close(gradient[name], value, rtol=1e-3, atol=1e-5)


def test_a_run_with_accumulation_trains(make_config):
    for accumulate in ("tokens", "batches"):
        record = run(make_config(task="squad", batch_size=2, grad_accum=2, accumulate=accumulate))
        assert record["config"]["accumulate"] == accumulate and record["history"][-1]["train_loss"] > 0
