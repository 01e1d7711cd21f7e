"""Checkpointed activations: the same losses and gradients to the last bit, with less kept."""

import pytest
import torch
from conftest import FAMILIES

from adept.bench.memory import count_step
from adept.data.batches import make_batch
from adept.data.dataset import load_data
from adept.training.loop import run
from adept.training.session import open_session
from adept.training.stack import Stack


def open_filled(make_config, family: str, method: str, **fields):
    """(a session whose trained parameters are random, a batch of rows of different lengths)."""
    session = open_session(make_config(family, method, **fields))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in session.trainables.values():
            parameter.normal_(std=0.3)
    session.model.train()
    rows = session.codec.encode(load_data(session.task, session.config).train[:5])
    return session, make_batch(session.codec, rows)


def loss_and_gradients(session, batch) -> list[torch.Tensor]:
    torch.manual_seed(1)
    loss = Stack([session]).losses([batch.inputs]).sum()
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in session.trainables.values())]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["pt", "dept", "adept", "lora", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_loss_and_gradients_are_equal_to_the_last_bit(make_config, family, method, dropout):
    fields = {"model_dropout": dropout} | {
        "adept": {"bottleneck_dropout": dropout},
        "lora": {"lora_dropout": dropout},
    }.get(method, {})
    plain = loss_and_gradients(*open_filled(make_config, family, method, **fields))
    again = loss_and_gradients(*open_filled(make_config, family, method, **fields, checkpoint_activations=True))
    assert len(plain) > 1 and all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert all(gradient.any() for gradient in plain[1:] if method != "full")


@pytest.mark.parametrize("family", FAMILIES)
def test_less_is_kept_and_the_run_is_the_same(make_config, tmp_path, family):
    plain, checkpointed = (
        open_filled(make_config, family, "adept", checkpoint_activations=chosen) for chosen in (False, True)
    )
    saved = []
    for session, batch in (plain, checkpointed):
        stack = Stack([session])
        saved.append(count_step(session.model, lambda: stack.losses([batch.inputs]).sum()).saved)  # noqa: B023
    assert 2 * saved[1] < saved[0]
    assert plain[0].config.run_id == checkpointed[0].config.run_id
    losses = []
    for chosen in (False, True):
        fields = {"checkpoint_activations": chosen, "results_dir": str(tmp_path / str(chosen))}
        record = run(make_config(family, "adept", model_dropout=0.1, **fields))
        losses.append([entry["train_loss"] for entry in record["history"]])
    assert losses[0] == losses[1]


def test_bf16_under_autocast(make_config):
    results = [
        loss_and_gradients(*open_filled(make_config, "llama", "adept", precision="bf16", checkpoint_activations=chosen))
        for chosen in (False, True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
