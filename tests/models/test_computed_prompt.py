"""The prompt of an evaluation is computed once, and changes no answer and no log-probability."""

import pytest
import torch
from conftest import SIZES, runnable
from explicit_formulas import examples, filled_session

from adept.methods import METHODS
from adept.models.generation import generate_ids
from adept.training import evaluation
from adept.training.evaluation import computed_prompt, evaluating, label_log_probabilities, predict

WITH_PROMPT = [
    pair for pair in runnable([name for name in METHODS if "prompt_len" in SIZES[name]], ["llama", "codegen"])
    if pair[0] != "prefix"
]  # fmt: skip


@pytest.fixture
def batch_of(make_config):
    def make(method, family):
        session = filled_session(make_config, family, method)
        return session, session.codec.source_batch(examples(session))

    return make


@pytest.mark.parametrize(("method", "family"), WITH_PROMPT)
@torch.no_grad()
def test_answers_and_log_probabilities_are_those_of_whole_rows(batch_of, method, family):
    session, batch = batch_of(method, family)
    assert (batch["attention_mask"].sum(1).min() + 2 < batch["input_ids"].shape[1]).item()  # with padding
    with evaluating(session):
        prompt = computed_prompt(session)
        assert prompt.length == len(session.codec.prompt_ids) - 1
        for _ in range(2):  # what an offset remembers of the batch before has no effect
            torch.testing.assert_close(
                label_log_probabilities(session, batch, prompt), label_log_probabilities(session, batch),
                rtol=2e-4, atol=2e-4,
            )  # fmt: skip
            for beams in (1, 3):
                answers = [generate_ids(session.model, batch, 6, beams=beams, prompt=own) for own in (prompt, None)]
                assert torch.equal(*answers)


@pytest.mark.parametrize("scoring", ["generate", "likelihood"])
def test_an_evaluation_computes_it_once(make_config, monkeypatch, scoring):
    session = filled_session(make_config, "llama", "adept", eval_batch_size=2)
    rows, passed = examples(session), []
    session.prompted_embedding.register_forward_pre_hook(lambda _, ids: passed.append(tuple(ids[0].shape)))
    predict(session, rows, scoring)
    length = len(session.codec.prompt_ids) - 1
    assert passed[0] == (1, length) and (1, length) not in passed[1:]
    longest = max(len(row.source_ids) for row in rows)
    assert max(width for _, width in passed) == longest + 1
    monkeypatch.setattr(evaluation, "computed_prompt", lambda _: None)
    passed.clear()
    predict(session, rows, scoring)
    assert max(width for _, width in passed) == longest + len(session.codec.prompt_ids)


def test_where_there_is_none_to_compute(make_config):
    assert computed_prompt(filled_session(make_config, "t5", "adept")) is None
    assert computed_prompt(filled_session(make_config, "llama", "lora")) is None
