"""Shifted and absent offsets at evaluation (Tables 1 and 11): --offset_shift and --without_offset."""

import pytest
import torch
from explicit_formulas import filled_session, hook_outputs

from adept.base.errors import UserError
from adept.data.dataset import load_data
from adept.serving.load import load
from adept.training.evaluation import evaluate
from adept.training.loop import run

AT_EVALUATION = {"steps": 0, "init_from": "x"}


@pytest.mark.parametrize("k", [0, 1, 5, 11, 12, 17])
def test_a_shift_is_the_rolled_product_of_a_and_b(make_config, k):
    plain = filled_session(make_config, "llama", "dept", offset_len=12)
    shifted = filled_session(make_config, "llama", "dept", offset_len=12, offset_shift=k, **AT_EVALUATION)
    hook = shifted.prompted_embedding
    tokens = torch.tensor([[*shifted.codec.prompt_ids, *[5] * 20]])
    offset = hook(tokens)[0, 5:] - hook.base.weight[5]
    table = (hook.offset.a @ hook.offset.b).detach()
    torch.testing.assert_close(offset[:12], torch.cat([table[k % 12 :], table[: k % 12]]))
    assert not offset[12:].any()
    assert torch.equal(hook_outputs(shifted), hook_outputs(plain)) == (k % 12 == 0)
    roll_offset_rows(plain, k)
    torch.testing.assert_close(hook_outputs(plain), hook_outputs(shifted))


@torch.no_grad()
def roll_offset_rows(session, k):
    """Does to DePT's parameters what --offset_shift k does to the positions."""
    a = session.prompted_embedding.offset.a
    a.copy_(a.roll(-k, dims=0))


def leave_out_offset(session):
    session.prompted_embedding.use_offset = False


@pytest.mark.parametrize(
    ("method", "fields", "named"),
    [
        ("adept", {"offset_shift": 1, **AT_EVALUATION}, "--offset_shift has no effect on method 'adept'"),
        ("pt", {"offset_shift": 1, **AT_EVALUATION}, "--offset_shift has no effect on method 'pt'"),
        ("lora", {"offset_shift": 1, **AT_EVALUATION}, "--offset_shift has no effect on method 'lora'"),
        ("zero_shot", {"offset_shift": 1}, "--offset_shift has no effect on method 'zero_shot'"),
        ("pt", {"without_offset": True, **AT_EVALUATION}, "--without_offset has no effect on method 'pt'"),
        ("dept", {"offset_shift": 1, "init_from": "x"}, "--steps 0"),
        ("dept", {"offset_shift": 1, "steps": 0}, "--init_from"),
        ("adept", {"without_offset": True, "init_from": "x"}, "--steps 0"),
        ("dept", {"offset_shift": -1, **AT_EVALUATION}, ">= 0"),
    ],
)
def test_both_options_are_for_trained_adapters_at_evaluation(make_config, method, fields, named):
    with pytest.raises(UserError, match=named) as caught:
        make_config("t5", method, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "field", "change"),
    [
        ("dept", {"offset_shift": 7}, lambda session: roll_offset_rows(session, 7)),
        ("dept", {"without_offset": True}, leave_out_offset),
        ("adept", {"without_offset": True}, leave_out_offset),
    ],
)
def test_a_run_evaluates_a_trained_adapter_with_changed_offsets(make_config, tmp_path, method, field, change):
    trained = make_config("t5", method, prompt_lr=0.3, offset_lr=0.3)
    run(trained)
    where = {"results_dir": str(tmp_path / "results")}
    record = run(make_config("t5", method, steps=0, init_from=trained.run_id, **field))
    assert record["run_id"] != trained.run_id
    original, changed = load(trained.run_id, **where), load(record["run_id"], **where)
    assert all(torch.equal(p, changed.trainables[name]) for name, p in original.trainables.items())
    assert not torch.equal(hook_outputs(original), hook_outputs(changed))
    change(original)
    assert torch.equal(hook_outputs(original), hook_outputs(changed))
    assert evaluate(original, original.codec.encode(load_data(original.task, trained).test))[0] == record["test"]


def test_folding_without_the_offset_leaves_it_out(make_config):
    session = filled_session(make_config, "llama", "adept")
    hook = session.prompted_embedding
    hook.use_offset = False
    plain = hook_outputs(session)
    hook.fold()
    assert torch.equal(hook_outputs(session), plain)
