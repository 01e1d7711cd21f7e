"""Runs stacked on one frozen model are separate runs up to rounding: steps in float64, and whole runs.

So they are, too, when one of them ends, fails or is taken by another process, and when memory runs out or a signal
comes.
"""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES
from safetensors.torch import load_file

from adept.base.errors import UserError
from adept.commands.main import main
from adept.data.batches import training_batches
from adept.data.dataset import load_data
from adept.runs.claim import RunClaimed, claim_run
from adept.runs.layout import run_folder
from adept.runs.record import read_record
from adept.tables.launchers.in_process import InProcess
from adept.tables.sweep import Progress, carry_out, group_into_stacks
from adept.tables.table_file import load_table
from adept.training import loop
from adept.training import run as run_module
from adept.training.loop import run, train_runs
from adept.training.optim import make_optimizer, parameter_groups, schedule
from adept.training.resume import Checkpoints
from adept.training.run import EarlyStopped
from adept.training.session import open_session, open_sessions
from adept.training.signals import Interrupted
from adept.training.stack import Stack, StackedEmbedding, stack_key
from adept.training.step import next_step_input, train_step

RATES = {"prompt_lr": 0.03, "offset_lr": 1e-2}
RUNS = [  # what stacked runs may differ in; 5 rows a batch leave a last one of 4
    ("adept", {**RATES}),
    ("pt", {"prompt_lr": 0.1, "seed": 3}),
    ("dept", {**RATES, "offset_lr": 0.1, "warmup_steps": 2}),
    ("adept", {**RATES, "prompt_len": 0, "bottleneck": 7, "seed": 1, "max_grad_norm": 0.1}),
    ("dept_relu", {**RATES, "weight_decay": 0.1, "schedule": "constant"}),
]


EXACT = {"rtol": 1e-9, "atol": 1e-11}
TOLERANCE = {
    "t5": EXACT,
    "llama": EXACT,
    "codegen": {"rtol": 1e-5, "atol": 1e-6},
}  # CodeGen's attention computes in float32 whatever comes


@pytest.fixture
def configs(make_config):
    """configs(family, **common): the runs of RUNS on that family's tiny model."""

    def make(family, **common):
        fields = {"batch_size": 5, "steps": 9, "model_dropout": 0, **common}
        made = [make_config(family, method, **{**fields, **own}) for method, own in RUNS]
        assert len({stack_key(config) for config in made}) == 1
        return made

    return make


class Trained:
    """A session in float64 with its optimizer and batches."""

    def __init__(self, session):
        config, self.session = session.config, session
        session.model.double().train()
        self.optimizer = make_optimizer(parameter_groups(session.model, session.method.learning_rates()), config)
        rows = session.codec.encode(load_data(session.task, config).train)
        self.batches, self.multiplier = training_batches(session.codec, rows, config), schedule(config)

    def step_input(self, number):
        return next_step_input(self.session, self.optimizer, self.batches, self.multiplier(number))


@pytest.mark.parametrize("grad_accum", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_stacked_steps_are_separate_steps_in_float64(configs, family, grad_accum):
    made = configs(family, grad_accum=grad_accum)
    alone = [Trained(open_session(config)) for config in made]
    stacked = [Trained(session) for session in open_sessions(made)]
    assert len({id(p) for t in stacked for p in t.session.model.parameters() if not p.requires_grad}) == len(
        [p for p in stacked[0].session.model.parameters() if not p.requires_grad]
    )  # one model
    widths = set()
    for number in range(made[0].steps):
        inputs = [t.step_input(number) for t in stacked]
        widths |= {len({step.batches[0].inputs["input_ids"].shape for step in inputs})}
        together = train_step(inputs)
        for one, other in zip(together, (train_step([t.step_input(number)])[0] for t in alone), strict=True):
            # Losses are reported in float32.
            torch.testing.assert_close(one.loss.double(), other.loss.double(), rtol=1e-6, atol=0)
    assert max(widths) > 2  # batches of several widths and sizes were stacked
    for ours, theirs in zip(stacked, alone, strict=True):
        for name, parameter in ours.session.trainables.items():
            torch.testing.assert_close(parameter, theirs.session.trainables[name], **TOLERANCE[family])
            assert parameter.abs().sum() > 0


def test_a_stack_changes_nothing_in_the_models_it_is_made_of(configs):
    sessions = open_sessions(configs("t5"))
    hooks = [session.model.encoder.embed_tokens for session in sessions]
    with Stack(sessions).joined_embedding():
        assert isinstance(sessions[0].model.encoder.embed_tokens, StackedEmbedding)
    assert [session.model.encoder.embed_tokens for session in sessions] == hooks
    names = [set(session.trainables) for session in sessions]
    assert names[1] == {"encoder.embed_tokens.prompt"}
    assert names[3] == {f"encoder.embed_tokens.offset.{part}" for part in ("w_down", "w_up", "b_1", "b_2")}


def test_bf16_stacks_start_from_the_unrounded_table(configs):
    made = configs("llama", precision="bf16")
    for config, session in zip(made, open_sessions(made), strict=True):
        for name, parameter in open_session(config).trainables.items():
            assert torch.equal(session.trainables[name], parameter)


def test_keys_tell_what_can_be_stacked(make_config):
    key = stack_key(make_config("t5", "adept"))
    assert key == stack_key(make_config("t5", "pt", seed=9, prompt_lr=0.5, steps=7))
    for other in (
        make_config("t5", "adept", batch_size=8), make_config("t5", "adept", task="mrpc"),
        make_config("llama", "adept"), make_config("t5", "adept", precision="bf16"),
        make_config("t5", "adept", grad_accum=2), make_config("t5", "adept", few_shot=8),
        make_config("t5", "adept", max_source_len=32), make_config("t5", "adept", model_dropout=0.2),
    ):  # fmt: skip
        assert stack_key(other) not in (None, key)
    for method in ("lora", "full", "pt_table", "zero_shot"):
        assert stack_key(make_config("t5", method)) is None


# Whole runs -----------------------------------------------------------------------------------------------------------


def files_of(config):
    """(the record, its adapter, its predictions) of a finished run."""
    folder = run_folder(config.results_dir, config.run_id)
    record = read_record(config.results_dir, config.run_id)
    return record, load_file(folder / "adapter.safetensors"), (folder / "predictions.jsonl").read_text()


def assert_equal_runs(stacked, alone):
    (record, weights, predictions), (other, expected, lines) = files_of(stacked), files_of(alone)
    assert predictions == lines
    for name in (
        "run_id",
        "best_step",
        "validation",
        "test",
        "sizes",
        "trainable_params",
        "total_params",
        "param_groups",
    ):
        assert record[name] == other[name], name
    for ours, theirs in zip(record["history"], other["history"], strict=True):
        assert (ours["step"], ours["validation"]) == (theirs["step"], theirs["validation"])
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_stacked_runs_end_with_the_records_of_separate_runs(configs, family, tmp_path):
    """Runs of different length: the stack becomes smaller, and the last run of it is alone."""
    common = {"scoring": "likelihood", "eps": 1e-2, "eval_every": 3, "save_every": 2}
    stacked = configs(family, **common, results_dir=str(tmp_path / "stacked"))
    alone = configs(family, **common, results_dir=str(tmp_path / "alone"))
    outcomes = train_runs([(config, None) for config in stacked])
    for config, own, record in zip(stacked, alone, outcomes, strict=True):
        assert record == read_record(config.results_dir, config.run_id)
        assert record["provenance"]["stacked"] == len(stacked)
        assert "stacked" not in run(own)["provenance"]
        assert_equal_runs(config, own)
    assert not list(Path(stacked[0].results_dir).rglob("checkpoint*")) and not list(
        Path(stacked[0].results_dir).rglob(".*")
    )


def test_each_run_of_a_stack_ends_in_its_own_way(make_config, tmp_path):
    fields = {"scoring": "likelihood", "model_dropout": 0, "steps": 6, "eval_every": 2, **RATES}
    finished, taken, ill, slow, misfit, short, plain = (
        make_config("t5", "adept", **{**fields, **own})
        for own in (
            {"seed": 1}, {"seed": 2},
            {"seed": 3, "prompt_lr": 1e30, "offset_lr": 1e30, "warmup_steps": 0, "max_grad_norm": 0}, {"seed": 4},
            {"seed": 5, "init_from": "nothing"}, {"seed": 6, "steps": 2}, {"seed": 7},
        )
    )  # fmt: skip
    before = run(finished)
    with claim_run(taken.results_dir, taken.run_id):
        ends = train_runs(
            [
                (finished, None),
                (taken, None),
                (ill, None),
                (slow, lambda at, _: at == 4),
                (misfit, None),
                (short, None),
                (plain, None),
            ]
        )
    assert ends[0] == before
    assert isinstance(ends[1], RunClaimed)
    assert isinstance(ends[2], UserError) and "the loss is" in str(ends[2])
    assert isinstance(ends[3], EarlyStopped) and "from step 4 of 6, which is saved" in str(ends[3])
    assert isinstance(ends[4], UserError) and "no adapter 'nothing'" in str(ends[4])
    assert [end["best_step"] > 0 for end in ends[5:]] == [True, True]
    alone = make_config("t5", "adept", **fields, seed=7, results_dir=str(tmp_path / "alone"))
    run(alone)
    assert_equal_runs(plain, alone)


def at_most(monkeypatch, runs, error):
    """Forward passes of more runs raise the error. Returns a list of how many runs each was of."""
    original, sizes = Stack.losses, []

    def losses(stack, batches):
        sizes.append(len(batches))
        if len(batches) > runs:
            raise error
        return original(stack, batches)

    monkeypatch.setattr(Stack, "losses", losses)
    return sizes


def test_a_stack_without_enough_memory_is_halved(configs, monkeypatch, tmp_path, capsys):
    made = configs("t5", scoring="likelihood", eps=1e-2)
    sizes = at_most(monkeypatch, 2, RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"))
    ends = train_runs([(config, None) for config in made])
    assert all(end["status"] == "completed" for end in ends)
    assert sizes[0] == 5 and sizes.count(5) == 1 and max(sizes[1:]) == 2
    assert "too little memory for 5 runs together: 2 at a time" in capsys.readouterr().err
    monkeypatch.undo()
    for config, alone in zip(
        made, configs("t5", scoring="likelihood", eps=1e-2, results_dir=str(tmp_path / "alone")), strict=True
    ):
        run(alone)
        assert_equal_runs(config, alone)


def test_a_run_that_does_not_fit_alone_ends_in_one_line(configs, monkeypatch):
    monkeypatch.setattr(loop, "train_step", lambda *_: torch.empty(2**50, dtype=torch.uint8))
    ends = train_runs([(config, None) for config in configs("t5")])
    assert all(
        isinstance(end, UserError) and str(end).startswith("out of memory while training: --batch_size 1")
        for end in ends
    )


def test_a_signal_saves_every_run_of_a_stack_and_the_same_stack_goes_on(configs, monkeypatch, tmp_path, capsys):
    made = configs("t5", scoring="likelihood", eps=1e-2)
    original, calls = loop.train_step, []

    def signalled(*arguments):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(loop, "train_step", signalled)
    with pytest.raises(Interrupted) as stop:
        train_runs([(config, None) for config in made])
    assert stop.value.code == 128 + signal.SIGTERM and "from step 4 of 9, which is saved" in str(stop.value)
    capsys.readouterr()
    ends = train_runs([(config, None) for config in made])
    assert capsys.readouterr().err.count("goes on from step 4 of 9") == len(made)
    for config, end, alone in zip(
        made, ends, configs("t5", scoring="likelihood", eps=1e-2, results_dir=str(tmp_path / "alone")), strict=True
    ):
        assert end["provenance"]["resumed"][0]["step"] == 4
        run(alone)
        assert_equal_runs(config, alone)


def test_a_run_whose_next_batch_cannot_be_made_ends_alone(configs, monkeypatch):
    made, original = configs("t5", scoring="likelihood", steps=4), run_module.next_step_input
    broken = made[1].run_id

    def fail_in_third_step(session, optimizer, batches, multiplier):
        if session.config.run_id == broken and steps.append(1) is None and len(steps) == 3:
            raise ValueError("no batch")
        return original(session, optimizer, batches, multiplier)

    steps: list[int] = []
    monkeypatch.setattr(run_module, "next_step_input", fail_in_third_step)
    outcomes = train_runs([(config, None) for config in made])
    assert str(outcomes[1]) == "no batch"
    assert all(outcome["status"] == "completed" for outcome in outcomes[:1] + outcomes[2:])


@pytest.mark.parametrize("error", [UserError("the disk is full"), KeyboardInterrupt()], ids=["disk", "second ctrl-c"])
def test_a_run_that_cannot_be_saved_after_a_signal_does_not_keep_the_others_from_it(configs, monkeypatch, error):
    made, original = configs("t5", scoring="likelihood", steps=4), Checkpoints.save

    def save(checkpoints, state):
        if checkpoints.session.config.run_id == made[0].run_id:
            raise error
        original(checkpoints, state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", save)
        patch.setattr(loop, "train_step", lambda *rest: os.kill(os.getpid(), signal.SIGTERM) or train_step(*rest))
        train_runs([(config, None) for config in made])
    saved = [(run_folder(c.results_dir, c.run_id) / "checkpoint.safetensors").exists() for c in made]
    assert saved == [False, True, True, True, True]


# Sweeps ---------------------------------------------------------------------------------------------------------------


class Recorded(InProcess):
    def __init__(self, slots=1, on_gpu=False):
        super().__init__()
        self.slots, self.on_gpu, self.sizes = slots, on_gpu, []

    def submit(self, stack):
        self.sizes.append([config.get("prompt_lr") for config, _ in stack])
        super().submit(stack)


@pytest.fixture
def table(tmp_path):
    def load(grid, **fields):
        common = {
            "model": "tiny-t5", "data_dir": "fixtures", "task": "rte", "method": "adept", "prompt_len": 3,
            "bottleneck": 2, "steps": 2, "eval_every": 2, "batch_size": 2, "eval_rows": 4, "max_source_len": 32,
            "max_new_tokens": 2, "scoring": "likelihood", **fields,
        }  # fmt: skip
        file = tmp_path / "made_up.yaml"
        file.write_text(json.dumps({"title": "Made up", "fields": common, "grid": grid, "rows": "prompt_lr"}))
        return load_table(file, {"results_dir": str(tmp_path / "results")})

    return load


def test_a_sweep_stacks_its_runs(table, capsys):
    made = table([{"prompt_lr": [0.1, 0.2, 0.3, 0.4, 0.5]}, {"prompt_lr": [0.6, 0.7], "batch_size": 4}])
    launcher = Recorded()
    assert carry_out([made], launcher, stack=2) == {}
    assert launcher.sizes == [[0.1, 0.2], [0.3, 0.4], [0.5], [0.6, 0.7]]
    assert all(
        run.record["provenance"].get("stacked", 1) == (1 if run.config.get("prompt_lr") == 0.5 else 2)
        for run in made.runs()
    )
    lines = capsys.readouterr().err
    assert "done 0 of 7 · running 2 · failed 0 · left 5" in lines and "done 7 of 7 · running 0" in lines


def test_what_failed_in_a_stack_is_tried_again_alone(table, monkeypatch):
    made = table([{"prompt_lr": [0.1, 0.2, 0.3]}])
    at_most(monkeypatch, 1, ValueError("only together"))
    launcher = Recorded()
    assert carry_out([made], launcher, stack=8) == {}
    assert launcher.sizes == [[0.1, 0.2, 0.3], [0.1], [0.2], [0.3]]


def test_stacks_keep_all_slots_busy_and_suit_the_device(table):
    runs = table([{"prompt_lr": [i / 100 for i in range(1, 21)]}]).runs()

    def sizes(slots, most, on_gpu, chosen=runs):
        return [len(stack) for stack in group_into_stacks(chosen, Progress(slots), most, on_gpu)]

    assert sizes(1, None, False) == [1] * 20  # on a CPU
    assert sizes(1, None, True) == [8, 8, 4]
    assert sizes(4, None, True) == [5, 5, 5, 5]
    assert sizes(1, 20, False) == [20]
    long = table(
        [{"prompt_lr": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}], batch_size=32, max_source_len=512, prompt_len=100
    ).runs()
    assert sizes(1, None, True, long) == [3, 3, 2]  # 3 x 32 x 612 tokens
    other = table(
        [{"prompt_lr": 0.1}, {"method": "lora", "lr": [0.1, 0.2], "rank": 2, "prompt_len": None, "bottleneck": None}]
    ).runs()
    assert sizes(1, None, True, other) == [1, 1, 1]


@pytest.mark.parametrize(("word", "why"), [("0", "a whole number"), ("-1", "a whole number"), ("many", "not many")])
def test_the_flag_is_checked(capsys, word, why):
    assert main(["sweep", "configs/table12.yaml", "--profile", "smoke", f"--stack={word}"]) == 2
    assert why in capsys.readouterr().err
