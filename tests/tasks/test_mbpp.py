"""MBPP end to end on tiny decoder-only models: prompt forms, lengths, sampling."""

import json

import pytest
import torch

from adept.base.errors import UserError
from adept.config.run import task_of
from adept.data.dataset import load_data
from adept.metrics import Answers, score
from adept.models.tiny import fixture_rows
from adept.tasks.mbpp import function_body
from adept.training import run as training_run
from adept.training.evaluation import predict
from adept.training.loop import run
from adept.training.session import open_session


@pytest.fixture
def mbpp(make_config):
    def make(family="llama", method="adept", **fields):
        common = {
            "task": "mbpp", "allow_code_execution": True, "max_source_len": 96, "max_target_len": 24,
            "max_new_tokens": 8, "steps": 2,
        }  # fmt: skip
        return make_config(family, method, **{**common, **fields})

    return make


def test_the_fixtures_own_solutions_pass(mbpp):
    config = mbpp()
    rows = fixture_rows("mbpp")
    targets, references = zip(*(function_body(row, config.task_options) for row in rows), strict=True)
    assert score(("pass@1_two_versions", "pass@1"), Answers(targets, references)) == {
        "pass@1_two_versions": 100,
        "pass@1": 100,
    }


@pytest.mark.parametrize("family", ["llama", "codegen"])
def test_a_run_tests_the_last_step_and_writes_the_samples(mbpp, tmp_path, family):
    config = mbpp(family, samples=2)
    record = run(config)
    assert record["sizes"] == {"train": 12, "validation": 0, "test": 12}
    assert (
        record["best_step"] == 2
        and record["validation"] == {}
        and [entry["validation"] for entry in record["history"]] == [{}]
    )
    assert record["test"] == {"pass@1_two_versions": 0, "pass@1": 0}
    assert any("generated programs run under seccomp" in note or "seccomp" in note for note in record["notes"])
    lines = (
        (tmp_path / "results" / "runs" / config.run_id / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    )
    ids = [json.loads(line)["id"] for line in lines]
    assert len(ids) == 24 and len(set(ids)) == 12 and ids[0] == ids[1]


def test_the_loss_is_on_the_completion_alone_and_nothing_stands_between(mbpp):
    config = mbpp()
    data, session = load_data(task_of(config), config), open_session(config)
    example = session.codec.encode(data.train[:1])[0]
    batch = session.codec.train_batch([example])
    tokenizer = session.codec.tokenizer
    assert batch["labels"][0].tolist()[: len(example.target_ids)] == list(example.target_ids)
    assert example.target_ids[-1] == tokenizer.eos_token_id
    shown = [i for i in batch["input_ids"][0].tolist() if i < len(tokenizer)]
    whole = tokenizer.decode(shown, skip_special_tokens=True)
    assert data.train[0].source.endswith('"""\n') and f'"""\n{data.train[0].target[:4]}' in whole


def test_truncation_keeps_the_prompts_end_and_the_bodys_beginning(mbpp):
    config = mbpp(max_source_len=12, max_target_len=6)
    data, session = load_data(task_of(config), config), open_session(config)
    example, text = session.codec.encode(data.train[:1])[0], data.train[0]
    tokenizer = session.codec.tokenizer
    assert len(example.source_ids) == 12 and text.source.endswith(tokenizer.decode(example.source_ids))
    assert len(example.target_ids) == 6 and text.target.startswith(tokenizer.decode(example.target_ids[:-1]))


def test_sampling_is_seeded_and_leaves_the_training_alone(mbpp):
    first, second = open_session(mbpp(temperature=5.0)), open_session(mbpp(temperature=5.0, seed=7))
    examples = first.codec.encode(load_data(first.task, first.config).test[:4])
    torch.manual_seed(0)
    drawn = predict(first, examples)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    assert drawn == predict(first, examples) != predict(second, examples)
    assert len(set(predict(first, examples[:1] * 4))) > 1  # equal sources are drawn each for itself
    greedy = open_session(mbpp(temperature=0))
    assert predict(greedy, examples) != drawn


def test_code_keeps_its_indentation(mbpp, monkeypatch):
    session = open_session(mbpp())
    ids = session.codec.ids("    return 1\n", special=False)
    assert session.codec.text(ids) == "    return 1\n"


def test_an_encoder_decoder_model_is_refused(mbpp):
    with pytest.raises(UserError, match="'mbpp' needs a decoder-only model"):
        run(mbpp("t5"))


def test_a_system_without_protection_is_told_before_anything_is_trained(mbpp, monkeypatch):
    def refuse():
        raise UserError("not here")

    monkeypatch.setattr(training_run, "require_protection", refuse)
    monkeypatch.setattr(training_run, "load_data", lambda *_: pytest.fail("loaded before the check"))
    with pytest.raises(UserError, match="not here"):
        run(mbpp())


def test_programs_run_with_permission_only(make_config, tmp_path):
    """A table can be laid out without it, a run cannot be started."""
    config = make_config("codegen", "adept", task="mbpp")
    with pytest.raises(UserError, match="add --allow_code_execution to permit it"):
        run(config)
    assert not (tmp_path / "results").exists()
