"""The dropout of adept/models/dropout.py: its rate, scale and gradient, where torch's own is used, T5's attention."""

import copy

import pytest
import torch
from torch import nn

from adept.models import dropout as dropout_file
from adept.models import t5_attention
from adept.models.dropout import FastMaskDropout, dropout
from adept.models.loading import patch_attention_and_dropout
from adept.models.tiny import make_model


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_rate_scale_and_gradient(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(401, 999, dtype=dtype, requires_grad=True)
    y = dropout(x, p, True)
    assert y.dtype == dtype and y.shape == x.shape
    zeros, count = (y == 0).sum().item(), x.numel()
    assert abs(zeros - p * count) < 4 * (count * p * (1 - p)) ** 0.5  # four standard deviations
    torch.testing.assert_close(
        y[y != 0], torch.full_like(y[y != 0], 1 / (1 - p)), rtol=5e-3 if dtype == torch.bfloat16 else 1e-4, atol=0
    )
    y.sum().backward()
    assert torch.equal(x.grad, y)


def test_neighbours_that_share_a_draw_are_independent():
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.5, True) == 0).double().view(-1, 4)
    correlations = torch.corrcoef(torch.cat([dropped, dropped.roll(1, 0)], 1).T) - torch.eye(8)
    assert correlations.abs().max() < 4 / 100_000**0.5


def test_masks_follow_the_seed_and_differ_from_call_to_call():
    x, masks = torch.ones(1000), []
    for _ in range(2):
        torch.manual_seed(3)
        masks.append((dropout(x, 0.1, True), dropout(x, 0.1, True)))
    assert torch.equal(masks[0][0], masks[1][0]) and torch.equal(masks[0][1], masks[1][1])
    assert not torch.equal(*masks[0])


def test_every_dropout_of_a_model_has_fast_masks_and_does_nothing_in_evaluation():
    model = patch_attention_and_dropout(make_model("t5"))
    kinds = {type(m) for m in model.modules() if isinstance(m, nn.Dropout)}
    assert kinds == {FastMaskDropout}
    x, module = torch.ones(100), FastMaskDropout(0.5)
    assert (module(x) == 0).any() and torch.equal(module.eval()(x), x)
    assert torch.equal(FastMaskDropout(0.0)(x), x)


def test_a_compiled_step_draws_torchs_own_masks(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.manual_seed(1)
    ours = dropout(torch.ones(1000), 0.1, True)
    torch.manual_seed(1)
    assert torch.equal(ours, nn.functional.dropout(torch.ones(1000), 0.1))


@pytest.mark.parametrize("mask", ["rows", "none"])
def test_attention_in_training_equals_attention_in_evaluation_except_for_the_masks(mask, monkeypatch):
    """With masks that drop nothing, both modes give the same outputs and gradients."""
    for user in (t5_attention, dropout_file):
        monkeypatch.setattr(user, "dropout", lambda x, *_: x)
    torch.manual_seed(0)
    model = patch_attention_and_dropout(make_model("t5")).double().requires_grad_(False)
    encoder, outputs = model.get_encoder(), []
    embeds = torch.randn(3, 11, model.config.d_model, dtype=torch.float64)
    attended = torch.ones(3, 11, dtype=torch.long)
    if mask == "rows":
        attended[1, 7:] = attended[2, 2:] = 0
    for training in (True, False):
        encoder.train(training)
        given = embeds.clone().requires_grad_()
        state = encoder(inputs_embeds=given, attention_mask=attended).last_hidden_state
        (state * attended[..., None]).square().sum().backward()
        outputs.append((state * attended[..., None], given.grad))
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_training_drops_what_it_should_in_attention():
    """The mean over many masks is near the output without them: nothing is left out or scaled twice."""
    torch.manual_seed(0)
    layer = patch_attention_and_dropout(make_model("t5")).get_encoder().block[0].layer[0].SelfAttention
    layer.dropout = 0.3
    x = torch.randn(1, 9, layer.d_model)
    with torch.no_grad():
        drawn = torch.stack([layer.train()(x)[0] for _ in range(4000)])
        plain = copy.deepcopy(layer).eval()(x)[0]
    error = (drawn.mean(0) - plain).abs() / (drawn.std(0) / 4000**0.5)
    assert drawn.std(0).min() > 0 and error.max() < 5  # standard errors
