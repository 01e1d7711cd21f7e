"""XPrompt: what is removed is what matters least to the training loss, once, and the rest is trained on."""

import itertools
import math

import pytest
import torch
from explicit_formulas import examples, explicit_loss

from adept.base.errors import UserError
from adept.data.batches import batch_indices
from adept.data.dataset import load_data
from adept.methods.prompt_encoders import XPrompt
from adept.runs.adapter import PROMPT, read_weights
from adept.serving.load import load
from adept.training import start
from adept.training.loop import run
from adept.training.run import EarlyStopped
from adept.training.session import open_session
from adept.training.start import start_parameters

HALVES = {"keep_tokens": 0.5, "keep_pieces": 0.75}  # 4 of 8 tokens, 12 of their 16 pieces


def derivatives(session, rows, prompt):
    """([m], [m, q]): the loss of a batch by a factor on each token and on each piece, written out."""
    tokens = torch.ones(8, requires_grad=True)
    pieces = torch.ones(8, 4, requires_grad=True)
    gated = prompt * tokens[:, None] * pieces.repeat_interleave(8, dim=1)  # 32 numbers in 4 pieces of 8
    return torch.autograd.grad(explicit_loss(session, rows, lambda _ids: gated), [tokens, pieces])


@pytest.mark.parametrize(("family", "most"), [("t5", None), ("t5", 10), ("llama", None)])
def test_the_least_important_tokens_and_then_pieces_are_removed(make_config, family, most, trained_prompt):
    config = make_config(family, "xprompt", **HALVES, importance_rows=most)
    session = open_session(config)
    rows = session.codec.encode(load_data(session.task, config).train)
    (prompt,) = read_weights(start.find_adapter(trained_prompt(family), "")).values()
    of_tokens, of_pieces = torch.zeros(8), torch.zeros(8, 4)
    order = batch_indices([row.length for row in rows], 4, config.seed, group_by_length=True)
    for batch in itertools.islice(order, math.ceil((most or len(rows)) / 4)):
        by_token, by_piece = derivatives(session, [rows[i] for i in batch], prompt)
        of_tokens, of_pieces = of_tokens + by_token.abs(), of_pieces + by_piece.abs()
    tokens = sorted(range(8), key=lambda i: -of_tokens[i])[:4]
    pieces = sorted(itertools.product(tokens, range(4)), key=lambda place: -of_pieces[place])[:12]
    expected = torch.zeros(8, 4, dtype=torch.bool)
    for place in pieces:
        expected[place] = True

    start_parameters(session, rows)
    source = session.prompted_embedding.source
    assert torch.equal(source.kept, expected)
    assert torch.equal(source.prompt, prompt * expected.repeat_interleave(8, dim=1))


@pytest.fixture
def passes(monkeypatch) -> list:
    """A list that grows by one with each pass over the training rows."""
    made, original = [], start.batch_gradients
    monkeypatch.setattr(
        start, "batch_gradients", lambda *arguments, **limits: made.append(1) or original(*arguments, **limits)
    )
    return made


def test_a_removed_piece_stays_removed_and_is_not_counted(make_config, tmp_path, passes):
    config = make_config("t5", "xprompt", **HALVES, prompt_lr=0.1, scoring="likelihood")
    record = run(config)
    assert record["trainable_params"] == 12 * 8 and passes == [1]
    folder = tmp_path / "results" / "runs" / record["run_id"]
    (prompt,) = read_weights(folder).values()
    kept = (prompt.view(8, 4, 8) != 0).any(-1)
    assert kept.sum() == 12 and (kept.any(1).sum() <= 4) and (prompt != 0).sum() == 12 * 8
    assert torch.equal(load(record["run_id"], results_dir=str(tmp_path / "results")).made_prompt, prompt)
    assert (folder / PROMPT).is_file()
    # Evaluated again, or as a plain prompt, it is what it was; no other pass removes more.
    again = run(config.replace(init_from=record["run_id"], steps=0))
    plain = make_config("t5", "pt", prompt_len=8, steps=0, init_from=record["run_id"], scoring="likelihood")
    assert again["test"] == run(plain)["test"] == record["test"] and passes == [1]


def test_a_resumed_run_removes_nothing_again_and_ends_as_if_undisturbed(make_config, tmp_path, passes):
    fields = {**HALVES, "prompt_lr": 0.1, "model_dropout": 0.1, "scoring": "likelihood"}
    undisturbed = run(make_config("llama", "xprompt", **fields, results_dir=str(tmp_path / "undisturbed")))
    config = make_config("llama", "xprompt", **fields)
    with pytest.raises(EarlyStopped):
        run(config, lambda _step, _history: True)  # saved after step 2
    assert passes == [1, 1]
    record = run(config)
    assert passes == [1, 1] and record["provenance"]["resumed"]
    assert (record["best_step"], record["test"]) == (undisturbed["best_step"], undisturbed["test"])
    assert [e["train_loss"] for e in record["history"]] == [e["train_loss"] for e in undisturbed["history"]]
    weights = [
        next(iter(read_weights(tmp_path / name / "runs" / record["run_id"]).values()))
        for name in ("undisturbed", "results")
    ]
    assert torch.equal(*weights)


def test_removing_draws_no_random_numbers(make_config):
    session = open_session(make_config("t5", "xprompt", model_dropout=0.5))
    before = torch.get_rng_state()
    start_parameters(session, examples(session))
    assert torch.equal(torch.get_rng_state(), before)
    assert session.prompted_embedding.source.kept.sum() == XPrompt(prompt_len=8, pieces=4).kept_pieces == 8


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"init_from": None}, "'xprompt' goes on from a trained prompt: --init_from must name the run that trained it"),
        ({"pieces": 5}, "--pieces 5 does not divide the model's width 32"),
        ({"prompt_len": 9}, r"source.prompt is \[8, 32\], this run needs \[9, 32\]"),
    ],
)
def test_what_does_not_fit_is_one_line(make_config, fields, line):
    with pytest.raises(UserError, match=line) as told:
        run(make_config("t5", "xprompt", **fields))
    assert "\n" not in str(told.value)


def test_a_prompt_with_too_little_left_is_one_line(make_config):
    record = run(make_config("t5", "xprompt", **HALVES))
    with pytest.raises(UserError, match=r"has 12 pieces that are not zero, fewer than the 32 that --keep_tokens 1.0"):
        run(make_config("t5", "xprompt", keep_tokens=1, keep_pieces=1, init_from=record["run_id"]))
