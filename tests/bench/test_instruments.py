"""The instruments of the bench: FLOP, turns, ratios, operations."""

import pytest
import torch
from tiny_bench import TINY
from torch.utils.flop_counter import FlopCounterMode

from adept.bench.resources import OperationCounter
from adept.bench.timing import speedup, time_in_turns
from adept.models.families import forward_flops
from adept.models.loading import patch_attention_and_dropout, random_model

pytestmark = pytest.mark.usefixtures("tiny_bench")


@pytest.mark.parametrize("name", TINY)
def test_flops_are_what_torch_counts(name):
    """Forward, the products with weights; torch counts the attention of eager mode, all of a square."""
    model = random_model(name).eval()
    model.set_attn_implementation("eager")
    source, target, ids = 13, 3, torch.arange(13)[None]
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        if model.config.is_encoder_decoder:
            patch_attention_and_dropout(model)(input_ids=ids, decoder_input_ids=ids[:, :target])
        else:
            model(input_ids=torch.cat([ids, ids[:, : target - 1]], dim=1), logits_to_keep=target)
    weights, attention = forward_flops(model.config, source, target)
    if not model.config.is_encoder_decoder:
        tokens = source + target - 1
        attention *= 2 * tokens / (tokens + 1)  # ours counts what a causal query sees
    assert weights + attention == pytest.approx(counted.get_total_flops(), rel=0.02)


def test_times_are_taken_in_turns_and_ratios_within_a_repeat():
    order = []
    time_in_turns({name: lambda name=name: order.append(name) for name in "abc"}, 3, torch.device("cpu"))
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert speedup([4.0, 9.0, 8.0], [2.0, 3.0, 8.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_operations_are_counted_without_views():
    x = torch.ones(3, 4, requires_grad=True)
    with OperationCounter() as counted:
        y = (x.view(4, 3).T[:2] * 2).sum()
    assert counted.count == 2
    with OperationCounter() as counted:
        y.backward()
    assert 3 <= counted.count <= 5  # ones, * 2, the slice's zeros and copy
