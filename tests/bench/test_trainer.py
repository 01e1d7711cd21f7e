"""PEFT and transformers' Trainer beside our step: the same first loss and gradient, the same training."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_bench import TINY

from adept.base.errors import UserError
from adept.bench.contestants import Contestant, load_base_model, open_style_sessions, style_config
from adept.bench.profiles import PROFILES, STYLES
from adept.bench.report import merge_results, run_table
from adept.bench.synthetic import synthetic_examples
from adept.bench.trainer import TrainerContestant, collate, feature, open_trainer_session, share_of_right_rows
from adept.bench.whole_runs import measure_whole_runs
from adept.commands.main import main
from adept.data.batches import make_batch
from adept.training.stack import Stack
from adept.training.step import StepInput, train_step

pytestmark = pytest.mark.usefixtures("tiny_bench")

METHODS = {"pt": {}, "lora": {"lora_dropout": 0.0}}


def open_pair(name: str, method: str, **fields):
    """(our session, the Trainer's) on one tiny model, with the same trained numbers."""
    model, tokenizer = load_base_model(name, torch.device("cpu"))
    fields = {**METHODS[method], **fields}
    (ours,) = open_style_sessions("ours", model, tokenizer, "rte", name, "cpu", method=method, **fields)
    config = style_config("trainer", "rte", name, "cpu", method, **fields)
    return ours, open_trainer_session(config, model, tokenizer)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TINY)
def test_the_first_loss_and_gradient_are_the_trainers(name, method):
    ours, theirs = open_pair(name, method)
    rows = synthetic_examples(PROFILES["rte"], 6, ours)
    (mine,) = Stack([ours]).losses([make_batch(ours.codec, rows).inputs])
    loss = theirs.model(**collate(theirs.codec, [feature(row) for row in rows])).loss
    assert mine.item() == pytest.approx(loss.item(), rel=1e-5)
    pairs = zip(
        torch.autograd.grad(mine, list(ours.trainables.values())),
        torch.autograd.grad(loss, list(theirs.trainables.values())),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("name", ["t5-small", "llama3-8b"])
def test_steps_of_the_trainer_are_our_steps(name):
    """Three steps on three batches leave the same prompt: rates, AdamW, clipping and the order of rows agree."""
    ours, theirs = open_pair(name, "pt", schedule="constant", warmup_steps=0, prompt_lr=0.01, batch_size=4)
    rows = synthetic_examples(PROFILES["rte"], 12, ours)
    batches = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    start = ours.prompted_embedding.prompt.detach().clone()
    mine = Contestant([ours], STYLES["ours"], rows, batches)
    TrainerContestant([theirs], STYLES["trainer"], rows, batches).train()
    train_at_full_rate(mine)
    (prompt,) = theirs.trainables.values()
    assert (prompt - start).abs().max() > 0.01
    torch.testing.assert_close(ours.prompted_embedding.prompt, prompt, rtol=1e-3, atol=1e-4)


def train_at_full_rate(contestant: Contestant) -> None:
    """The bench trains at rate 0, which costs as much; here the rates are those of the config."""
    session = contestant.session
    for numbers in contestant.batches:
        batch = make_batch(session.codec, [contestant.examples[i] for i in numbers])
        train_step([StepInput(session, contestant.optimizers[0], (batch,), 1.0)], contestant.stack)


def test_a_batch_of_the_trainer_is_as_wide_as_its_longest_row():
    _, theirs = open_pair("t5-small", "pt")
    rows = synthetic_examples(PROFILES["rte"], 3, theirs)
    batch = collate(theirs.codec, [feature(row) for row in rows])
    assert batch["input_ids"].shape == (3, max(len(row.source_ids) for row in rows))
    contestant = TrainerContestant([theirs], STYLES["trainer"], rows, [[0, 1, 2]])
    cells, tokens, _ = contestant.lengths()
    assert cells == 3 * (5 + batch["input_ids"].shape[1]) and tokens == sum(5 + len(row.source_ids) for row in rows)


def test_a_method_that_peft_has_not_is_refused():
    model, tokenizer = load_base_model("t5-small", torch.device("cpu"))
    config = style_config("trainer", "rte", "t5-small", "cpu", "dept")
    with pytest.raises(UserError, match="the Trainer is compared on pt, lora, not on 'dept'"):
        open_trainer_session(config, model, tokenizer)


def test_a_row_is_right_where_all_its_target_tokens_are_the_likeliest():
    """Two tokens of PEFT's prompt stand before the inputs; what predicts a label stands one position before it."""
    labels = np.array([[-100, -100, 5, 1], [-100, 6, 1, -100], [-100, -100, 7, 1]])
    predicted = np.array([[9, 9, 9, 5, 1, 9], [9, 9, 6, 1, 9, -100], [9, 9, 9, 7, 2, 9]])
    found = share_of_right_rows(SimpleNamespace(label_ids=labels, predictions=predicted))
    assert found["accuracy"] == pytest.approx(200 / 3)


def test_the_bench_names_method_and_style(tmp_path, monkeypatch):
    monkeypatch.setattr("adept.bench.measure.measure_matmul_peak", lambda *_: 1e9)
    words = ["bench", "--models", "t5-small", "--profiles", "rte", "--repeats", "1", "--out", str(tmp_path / "speed")]
    compared = ["--style", "trainer", "ours", "--only", "step", "--method", "pt"]
    assert main([*words, *compared, "--entry", "cpu-trainer", "--clock", "processor"]) == 0
    (result,) = json.loads((tmp_path / "speed.json").read_text()).values()
    assert [(row["method"], row["style"]) for row in result["rows"]] == [
        ("pt", "trainer"), ("pt", "ours"),
    ]  # fmt: skip
    page = (tmp_path / "speed.md").read_text()
    assert "<!-- table: cpu-trainer -->" in page and "| t5-small | rte | trainer, pt |" in page
    assert "Processor time in place of wall-clock time" in page


def test_rows_of_another_method_are_kept():
    old = {"rows": [{"model": "m", "profile": "p", "style": "ours"}]}
    new = {"machine": {}, "rows": [{"model": "m", "profile": "p", "style": "ours", "method": "pt"}]}
    merged = merge_results(old, new | {"inference": [], "memory": []})
    assert merged["rows"] == old["rows"] + new["rows"] and "runs" not in merged


def test_whole_runs_are_timed_in_turns_with_the_same_flags(monkeypatch, tmp_path):
    def program(name: str) -> tuple[str, ...]:
        return "-c", f"import sys; print('{name}', *sys.argv[1:-1], file=open(r'{tmp_path / 'log'}', 'a'))"

    monkeypatch.setattr("adept.bench.whole_runs.PROGRAMS", {name: program(name) for name in ("trainer", "ours")})
    rows = measure_whole_runs("pt", 200, 2, "processor")
    lines = [line.split(maxsplit=1) for line in (tmp_path / "log").read_text().splitlines()]
    assert [name for name, _ in lines] == ["trainer", "ours", "ours", "trainer"]
    assert len({flags for _, flags in lines}) == 1 and "--steps 200 --eval_every 100" in lines[0][1]
    assert [(row["style"], row["steps"], row["method"]) for row in rows] == [
        ("trainer", 200, "pt"),
        ("ours", 200, "pt"),
    ]
    assert rows[0]["run"]["times_first"]["median"] == 1
    assert run_table(rows)[2].startswith("| smollm2-135m | movie_reviews | trainer, pt | 200 | 200 | ")


def test_a_whole_run_that_fails_says_why(monkeypatch):
    monkeypatch.setattr("adept.bench.whole_runs.PROGRAMS", {"trainer": ("-c", "import sys; sys.exit('error: why')")})
    with pytest.raises(UserError, match=r"a run of the style trainer failed: error: why"):
        measure_whole_runs("pt", 1, 1)


@pytest.mark.long
def test_both_programs_train_a_tiny_model_from_the_command_to_the_record():
    changes = {"task": "rte", "model": "tiny-llama", "data_dir": "fixtures", "batch_size": 2, "eval_rows": 4, "rank": 2}
    assert len(measure_whole_runs("lora", 2, 1, **changes)) == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--style", "trainer", "--only", "eval"], "unknown name 'eval'; known: run, step"),
        (["--style", "trainer", "--device", "cuda"], "whole runs are timed on a CPU: add --only step"),
        (["--method", "adpet"], "unknown name 'adpet'; did you mean 'adept'?"),
        (["--steps", "0"], "--steps must be >= 1, not 0"),
    ],
)
def test_mistakes_cost_one_line(words, reason, capsys):
    assert main(["bench", *words]) == 2
    line = capsys.readouterr().err
    assert reason in line and line.count("\n") == 1
