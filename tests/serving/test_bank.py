"""A bank answers for many runs in one batch as each run answers alone."""

import dataclasses

import pytest
import torch
from explicit_formulas import filled_session
from test_answers import ROW, TEXT

from adept.base.errors import UserError
from adept.models.loading import load_model
from adept.runs.adapter import save_adapter
from adept.serving import Bank, load
from adept.training.evaluation import LEAST_FULL, longest_answer
from adept.training.session import open_session

RUNS = {
    "adept 5": ("adept", {"prompt_len": 5, "bottleneck": 3}),
    "pt 9": ("pt", {"prompt_len": 9}),
    "adept 0": ("adept", {"prompt_len": 0, "bottleneck": 7}),
    "dept 5": ("dept", {"prompt_len": 5, "rank": 3, "offset_len": 40}),
    "zero_shot": ("zero_shot", {}),
    "dept 2": ("dept", {"prompt_len": 2, "rank": 2, "offset_len": 9, "offset_alpha": 8.0}),
    "dept_relu": ("dept_relu", {"prompt_len": 3, "rank": 4}),
    "ulpt": ("ulpt", {"prompt_len": 7, "rank": 3}),
    "loraxab": ("loraxab", {"prompt_len": 4, "bottleneck": 3, "rank": 2, "offset_len": 30}),
    "adept 12": ("adept", {"prompt_len": 12, "bottleneck": 2, "max_source_len": 40}),
}
"""Methods, prompt sources, prompt lengths and bottlenecks that differ in every way."""

SOURCES = [{**ROW, "sentence1": "A cat sat" + " very" * count + " still."} for count in (0, 11)]


@pytest.fixture
def save_runs(make_config, tmp_path):
    """save_runs(family, names, **fields) -> {name: adapter folder} of runs with random trained parameters."""

    def save(family, names=tuple(RUNS), **fields):
        folders = {}
        for number, name in enumerate(names):
            method, own = RUNS[name]
            session = filled_session(make_config, family, method, seed=number, **{**fields, **own})
            folders[name] = str(tmp_path / f"{family} {name}")
            made = (session.trainables, session.config, session.base_weights, session.made_prompt)
            save_adapter(tmp_path / f"{family} {name}", *made)
        return folders

    return save


def requests_of(folders, sources=SOURCES):
    """Every run is asked every source; runs and lengths change from request to request."""
    return [(folder, source) for source in sources for folder in folders.values()]


@pytest.mark.parametrize("family", ["t5", "llama", "codegen"])
def test_a_bank_answers_row_by_row_as_each_run_alone(family, save_runs):
    """Greedily, by a search with three beams, and by label probabilities."""
    folders = save_runs(family, max_new_tokens=4, targets="words")
    requests = requests_of(folders)
    bank = Bank([*folders.values()])
    alone = {folder: load(folder) for folder in folders.values()}
    for beams in (1, 3):
        expected = {folder: session.answer(SOURCES, beams=beams) for folder, session in alone.items()}
        assert bank.answer(requests, beams=beams) == [expected[folder][SOURCES.index(row)] for folder, row in requests]
    expected = {folder: session.label_probabilities(SOURCES) for folder, session in alone.items()}
    found = bank.label_probabilities(requests)
    for (folder, row), own in zip(requests, found, strict=True):
        assert own == pytest.approx(expected[folder][SOURCES.index(row)], rel=1e-4)
    assert len({tuple(own.values()) for own in found}) == len(requests)  # the runs differ


@pytest.mark.parametrize("family", ["t5", "llama", "codegen"])
def test_logits_of_a_mixed_batch_are_those_of_each_run(family, save_runs, monkeypatch):
    folders = save_runs(family, max_new_tokens=1)
    monkeypatch.setitem(LEAST_FULL, "cpu", 0.0)
    joint = first_logits(bank := Bank([*folders.values()]), lambda: bank.answer([(f, TEXT) for f in folders.values()]))
    assert len(joint) == len(folders)  # one batch, in the order of the runs
    alone = [first_logits(session := load(f), lambda: session.answer(TEXT)) for f in folders.values()]
    torch.testing.assert_close(joint, torch.cat(alone), rtol=0, atol=1e-5)


def first_logits(asked, ask):
    """[B, V]: the logits of the last position in the pass that says the first token, of an ask() for one token."""
    model, seen = getattr(asked, "model", None) or next(iter(asked._sessions.values())).model, []
    handle = model.register_forward_hook(lambda _, __, output: seen.append(output.logits[:, -1].clone()))
    ask()
    handle.remove()
    return seen[-1]  # a prompt that all rows have in common may have passed before


def test_answers_by_likelihood_carry_their_probabilities(save_runs):
    folders = save_runs("llama", ("pt 9", "dept 5"), max_new_tokens=2)
    requests = requests_of(folders)
    answers = Bank([*folders.values()], scoring="likelihood").answers(requests)
    assert [answer.text for answer in answers] == [load(f, scoring="likelihood").answer(row) for f, row in requests]
    assert all(answer.text == max(answer.probabilities, key=answer.probabilities.get) for answer in answers)


def test_runs_of_several_tasks_share_a_bank(save_runs, make_config):
    rte = save_runs("llama", ("adept 5", "pt 9"), max_new_tokens=4)
    paws = save_runs("codegen", ("pt 9",), model=make_config("llama").model, task="paws", scoring="likelihood")
    nq = save_runs("t5", ("dept 5",), model=make_config("llama").model, task="nq")
    folders = [*rte.values(), *paws.values(), *nq.values()]
    requests = [
        (folders[0], ROW), (folders[2], ROW), (folders[3], {"question": "Who sat?", "context": "A cat sat."}),
        (folders[1], TEXT),
    ]  # fmt: skip
    answers = Bank(folders).answers(requests)
    alone = [load(folder).answers([source])[0] for folder, source in requests]
    assert [answer.text for answer in answers] == [answer.text for answer in alone]
    assert answers[1].probabilities == pytest.approx(alone[1].probabilities, rel=1e-4)
    assert answers[0].probabilities is None


def test_equal_requests_are_answered_once_a_run(save_runs, monkeypatch):
    folders, sizes = save_runs("llama", ("pt 9", "adept 5"), max_new_tokens=2), []
    bank = Bank([*folders.values()])
    original = bank.embedding.forward
    monkeypatch.setattr(bank.embedding, "forward", lambda ids: sizes.append(len(ids)) or original(ids))
    answers = bank.answer([(folder, TEXT) for folder in folders.values()] * 3)
    # Each run's prompt, once; then the prefill and a decode step of two rows.
    assert sizes == [1, 1, 2, 2] and answers == answers[:2] * 3
    assert bank.answer([(folder, TEXT) for folder in folders.values()]) == answers[:2] and sizes[4:] == [2, 2]
    assert bank.answer([]) == []


def test_computed_prompts_must_fit_the_window_beside_every_source(save_runs):
    """A run's own rows fit; those of another have longer sources behind the longest prompt."""
    folders = save_runs("llama", ("pt 9", "zero_shot"), max_new_tokens=2)
    bank = Bank([*folders.values()])
    bank.answer([(folder, TEXT) for folder in folders.values()])  # computes the prompts
    rows = bank.encode([(folder, TEXT) for folder in folders.values()])
    batch, answer = {"input_ids": torch.zeros(2, 30)}, longest_answer(rows[0].session)
    for window, fits in ((None, True), (8 + 30 + answer, True), (8 + 30 + answer - 1, False)):
        for session in bank._sessions.values():
            object.__setattr__(session, "capabilities", dataclasses.replace(session.capabilities, window=window))
        assert (bank.prompts_of(rows, batch) is not None) == fits


def test_an_adapter_costs_what_it_trains(save_runs):
    folders = save_runs("llama")
    bank = Bank([*folders.values()])
    model = next(iter(bank._sessions.values())).model
    base, _ = load_model(next(iter(bank._sessions.values())).config.model)
    trained = sum(sum(p.numel() for p in load(folder).trainables.values()) for folder in folders.values())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in base.parameters()) + trained


def test_a_bank_in_bf16_answers_as_its_runs_do(save_runs):
    folders = save_runs("llama", ("pt 9", "adept 5", "zero_shot"), max_new_tokens=2, precision="bf16")
    probabilities = Bank([*folders.values()]).label_probabilities(requests_of(folders))
    for (folder, source), found in zip(requests_of(folders), probabilities, strict=True):
        assert found == pytest.approx(load(folder).label_probabilities(source), abs=0.02)


def test_what_cannot_share_a_batch_is_one_line(save_runs, make_config, tmp_path):
    (pt,) = save_runs("llama", ("pt 9",)).values()
    (other,) = save_runs("t5", ("pt 9",)).values()
    with pytest.raises(UserError, match=r"has --model .*tiny-llama, .* has --model .*tiny-t5: runs in one batch share"):
        Bank([pt, other])
    lora = open_session(make_config("llama", "lora"))
    save_adapter(tmp_path / "lora", lora.trainables, lora.config, lora.base_weights)
    with pytest.raises(
        UserError, match=r"lora: method 'lora' changes more .*; zero_shot, pt, dept, adept, .* can share"
    ):
        Bank([pt, str(tmp_path / "lora")])
    with pytest.raises(UserError, match="at least one run id"):
        Bank([])
    bank = Bank([pt])
    with pytest.raises(UserError, match="no run 'other' was loaded"):
        bank.answer([("other", TEXT)])
    with pytest.raises(UserError, match="source 1: task 'rte' needs the column 'sentence2'"):
        bank.answer([(pt, TEXT), (pt, {"sentence1": "x"})])


def test_an_adapter_of_another_base_with_equal_shapes_is_refused(save_runs, model_folders, tmp_path):
    (pt,) = save_runs("llama", ("pt 9",)).values()
    model, tokenizer = load_model(model_folders["llama"])
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="trained on the base model"):
        Bank([pt], model=str(tmp_path / "other"))
