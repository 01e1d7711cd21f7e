"""Killed runs go on: the same history, scores and adapter as undisturbed; a bad checkpoint is refused; signals."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, runs_of_methods
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adept.base.errors import UserError
from adept.data.batches import batch_indices
from adept.methods import METHODS
from adept.training import evaluation, loop
from adept.training import run as run_module
from adept.training.evaluation import LEAST_FULL, evaluate
from adept.training.loop import run
from adept.training.resume import SCHEMA, checksum
from adept.training.signals import Interrupted

RATES = {"prompt_lr": 0.3, "offset_lr": 1e-2, "scoring": "likelihood"}
OWNERS = {"open_sessions": loop, "train_step": loop, "evaluate": run_module, "most_likely_labels": evaluation}
"""Function -> the module that calls it by this name."""

NEWEST, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"


class Killed(BaseException):
    """In place of SIGKILL, which leaves the same on the disk but for lock and temporary files (tests/test_chaos.py)."""


def outcome(config) -> tuple[dict, dict[str, bytes]]:
    """(the record without what time decides, the bytes of the run's files) of a finished run."""
    record = json.loads((Path(config.results_dir) / "runs" / f"{config.run_id}.json").read_text())
    for entry in record["history"]:
        del entry["seconds"]
    for name in ("timing", "peak_memory_bytes"):
        del record[name]
    del record["config"]["results_dir"], record["config"]["save_every"]
    record["provenance"].pop("resumed", None)
    return record, {path.name: path.read_bytes() for path in folder_of(config).iterdir() if path.name != "adapter.json"}


def folder_of(config) -> Path:
    return Path(config.results_dir) / "runs" / config.run_id


def dies(monkeypatch, name: str, call: int, *, after: bool = False) -> None:
    """The process dies in the `call`-th call of the function `name` of OWNERS: before it, or just after it."""
    original, calls = getattr(OWNERS[name], name), itertools.count(1)

    def dying(*arguments, **keywords):
        dead = next(calls) == call
        if dead and not after:
            raise Killed
        result = original(*arguments, **keywords)
        if dead:
            raise Killed
        return result

    monkeypatch.setattr(OWNERS[name], name, dying)


def killed(monkeypatch, config, name: str, call: int, **options) -> None:
    """One life of a run that ends in Killed."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies(patch, name, call, **options)
        run(config)


OF_FAMILY = {
    "t5": {"grad_accum": 2},
    "llama": {"few_shot": 7, "group_by_length": False},
    "codegen": {"few_shot": 9, "grad_accum": 2, "batch_size": 5},
}
OF_METHOD = {"adept": {"bottleneck_dropout": 0.1}, "lora": {"lora_dropout": 0.1}}
LIKE_OTHERS = {
    *("spot", "residual", "dpt", "pt_embedding", "loraxl", "loraxab"),
    *("adapter", "adapterdrop", "bitfit", "dora", "vera", "ia3", "ln_tuning"),
}
"""Methods whose state is of the same kinds as that of those that are tried."""


@pytest.mark.parametrize(("method", "family"), [run for run in runs_of_methods() if run[0] not in LIKE_OTHERS])
def test_a_run_killed_again_and_again_ends_as_if_undisturbed(make_config, monkeypatch, tmp_path, method, family):
    rates = dict.fromkeys(METHODS[method].rates.values(), 0.01)
    fields = {
        "steps": 9, "eval_every": 4, "warmup_steps": 1, "scoring": "likelihood", "eval_batch_size": 2,
        "model_dropout": 0.1, **rates, **OF_FAMILY[family], **OF_METHOD.get(method, {}),
    }  # fmt: skip
    undisturbed = make_config(family, method, **fields, results_dir=str(tmp_path / "undisturbed"))
    run(undisturbed)

    config = make_config(family, method, **fields, save_every=2)
    killed(monkeypatch, config, "train_step", 1)  # before anything is saved
    killed(monkeypatch, config, "train_step", 4)  # saved at 2, dies in step 4
    killed(monkeypatch, config, "train_step", 2, after=True)  # 2 -> 4 takes two steps; dies before the evaluation
    killed(
        monkeypatch, config, "most_likely_labels", 2
    )  # dies in the middle of that evaluation, which is of two batches
    killed(monkeypatch, config, "evaluate", 1, after=True)  # dies between the evaluation and the checkpoint at 4
    killed(monkeypatch, config, "train_step", 7)  # from 2 on: saved at 4, 6 and 8, dies in step 9
    killed(monkeypatch, config, "evaluate", 2)  # from 8 on: evaluates 9, not 8 again, and dies before the test
    killed(monkeypatch, config, "most_likely_labels", 4)  # dies in the middle of the test
    run(config)
    assert outcome(config) == outcome(undisturbed)


def test_a_run_that_dies_after_every_step_ends_as_if_undisturbed(make_config, monkeypatch, tmp_path):
    fields = {"bottleneck_dropout": 0.1, "steps": 6, "eval_every": 2, **RATES}
    undisturbed = make_config("t5", "adept", **fields, results_dir=str(tmp_path / "undisturbed"))
    run(undisturbed)
    config = make_config("t5", "adept", **fields, save_every=1)
    for _ in range(5):
        killed(monkeypatch, config, "train_step", 2)
    record = run(config)
    assert outcome(config) == outcome(undisturbed)
    assert [entry["step"] for entry in record["provenance"]["resumed"]] == [1, 2, 3, 4, 5]
    assert not {NEWEST, PREVIOUS} & {path.name for path in folder_of(config).iterdir()}
    assert [path.name for path in folder_of(config).parent.iterdir()].count(f".{config.run_id}.lock") == 0
    seconds = [entry["seconds"] for entry in record["history"]]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert record["timing"]["train_seconds"] + record["timing"]["eval_seconds"] >= seconds[-1]


def test_a_run_that_wandb_mirrors_goes_on_too(make_config, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    undisturbed = make_config("t5", "adept", steps=6, **RATES, results_dir=str(tmp_path / "undisturbed"))
    run(undisturbed)
    config = make_config("t5", "adept", steps=6, **RATES, save_every=1, track="wandb")
    killed(monkeypatch, config, "train_step", 4)
    killed(monkeypatch, config, "evaluate", 1)
    run(config)
    mirrored = list((folder_of(config) / "wandb").rglob("*.wandb"))
    assert len(mirrored) == 3 and all(path.stem.endswith(config.run_id) for path in mirrored)  # three parts of one run
    shutil.rmtree(folder_of(config) / "wandb")
    (ours, files), (theirs, others) = outcome(config), outcome(undisturbed)
    assert ours["config"].pop("track") == "wandb" and theirs["config"].pop("track") == "none"
    assert (ours, files) == (theirs, others)


def test_the_best_step_may_lie_before_the_kill(make_config, monkeypatch, tmp_path):
    """The score falls as W_up, which starts at 0, grows: the first evaluation is the best."""
    tested = []

    def falling(session, examples):
        (grown,) = [p.detach().norm().item() for name, p in session.trainables.items() if name.endswith("w_up")]
        tested.append(grown)
        return {"accuracy": 100 / (1 + grown)}, ["0"] * len(examples)

    monkeypatch.setattr(run_module, "evaluate", falling)
    fields = {"steps": 8, "eval_every": 2, "warmup_steps": 0, **RATES}
    undisturbed = make_config("t5", "adept", **fields, results_dir=str(tmp_path / "undisturbed"))
    run(undisturbed)
    first, last = tested[0], tested[-1]
    config = make_config("t5", "adept", **fields, save_every=1)
    killed(monkeypatch, config, "train_step", 7)
    assert run(config)["best_step"] == 2
    assert outcome(config) == outcome(undisturbed)
    assert tested[-1] == last == first  # what is tested is what was best


def test_a_slow_machine_saves_by_the_clock(make_config, monkeypatch):
    monkeypatch.setattr("adept.training.resume.SAVE_SECONDS", 0.0)
    config = make_config("t5", "pt", steps=4)
    killed(monkeypatch, config, "train_step", 3)
    assert read_state(folder_of(config) / NEWEST)["step"] == 2
    never = make_config("t5", "pt", steps=4, seed=1, save_every=0)
    killed(monkeypatch, never, "train_step", 3)
    assert not (folder_of(never) / NEWEST).exists()


@pytest.mark.parametrize("group_by_length", [True, False])
def test_the_data_order_starts_anywhere(group_by_length):
    lengths = [(7 * i) % 23 for i in range(131)]
    whole = list(itertools.islice(batch_indices(lengths, 2, 5, group_by_length=group_by_length), 300))
    for skip in (0, 1, 65, 66, 67, 199):
        part = itertools.islice(batch_indices(lengths, 2, 5, group_by_length=group_by_length, skip=skip), 100)
        assert list(part) == whole[skip : skip + 100]


def test_skipped_epochs_cost_nothing(monkeypatch):
    draws = []
    monkeypatch.setattr(torch, "randperm", lambda count, **_: draws.append(count) or torch.arange(count))
    next(batch_indices([1] * 100, 10, 0, group_by_length=False, skip=1_000_003))
    assert draws == [100]


# The file -------------------------------------------------------------------------------------------------------------


def read_state(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["state"])["state"]


@pytest.fixture
def unfinished(make_config, monkeypatch):
    """unfinished(**fields): the config of a run with checkpoints at 2 (previous) and 3 (newest), and its folder."""

    def make(**fields):
        config = make_config("t5", "adept", **{"steps": 4, "save_every": 1, "eval_every": 4, **RATES, **fields})
        killed(monkeypatch, config, "train_step", 4)
        return config, folder_of(config)

    return make


def test_a_checkpoint_is_one_small_safetensors_file(make_config, monkeypatch):
    # 13,824 trained numbers, as with SmolLM2-135M
    config = make_config("t5", "pt", prompt_len=432, steps=3, eval_every=1, save_every=1)
    killed(monkeypatch, config, "train_step", 3)
    assert read_state(folder_of(config) / NEWEST)["step"] == 2 and read_state(folder_of(config) / PREVIOUS)["step"] == 1
    assert (folder_of(config) / NEWEST).stat().st_size < 300_000
    assert not [path for path in folder_of(config).iterdir() if path.name.startswith(".")]
    names = {name.split("/")[0] for name in load_file(folder_of(config) / NEWEST)}
    assert names == {"weights", "best", "optimizer", "losses", "random"}


def flip(content: bytes) -> bytes:
    """One bit in the middle of the tensors: of the right size, and readable."""
    place = len(content) - 3000
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "text": lambda _: b"not a checkpoint" * 100,
    "a bit": flip,
    "zeros": lambda content: content[:-4096] + bytes(4096),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(unfinished, make_config, tmp_path, capsys, kind):
    config, folder = unfinished()
    (folder / NEWEST).write_bytes(DAMAGE[kind]((folder / NEWEST).read_bytes()))
    capsys.readouterr()
    run(config)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "goes on" in line]
    assert NEWEST in line and ("cannot be read" in line or "is damaged" in line) and "from step 2 of 4" in line
    undisturbed = make_config("t5", "adept", steps=4, eval_every=4, **RATES, results_dir=str(tmp_path / "undisturbed"))
    run(undisturbed)
    assert outcome(config) == outcome(undisturbed)


def test_a_kill_between_the_two_renames_leaves_the_one_before(unfinished, capsys):
    config, folder = unfinished()
    (folder / NEWEST).replace(folder / PREVIOUS)
    capsys.readouterr()
    run(config)
    assert "goes on from step 3 of 4" in capsys.readouterr().err


def test_a_kill_beside_a_damaged_checkpoint_leaves_the_good_one(unfinished, monkeypatch, capsys):
    """The first checkpoint after it must take the damaged one's place, not move it onto the last good one."""
    config, folder = unfinished()
    (folder / NEWEST).write_bytes(b"")
    original = os.replace

    def replace(source, target):
        if Path(target).name == NEWEST:
            raise Killed
        original(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", replace)
        run(config)
    assert read_state(folder / PREVIOUS)["step"] == 2
    killed(monkeypatch, config, "train_step", 2)  # from 2 on: saved at 3
    assert (read_state(folder / PREVIOUS)["step"], read_state(folder / NEWEST)["step"]) == (2, 3)
    capsys.readouterr()
    assert run(config)["status"] == "completed"
    assert "goes on from step 3 of 4" in capsys.readouterr().err


def test_a_log_with_a_hole_is_whole_again_up_to_the_checkpoint_before_it(unfinished, make_config, tmp_path):
    """What comes after a checkpoint is written anew, whatever stands there."""
    config, folder = unfinished(log_every=1)
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 4, "train/l\0\0\0\0\n[1]\n\xff')
    run(config)
    undisturbed = make_config(
        "t5", "adept", steps=4, eval_every=4, log_every=1, **RATES, results_dir=str(tmp_path / "undisturbed")
    )
    run(undisturbed)
    assert outcome(config) == outcome(undisturbed)


def refused(monkeypatch, config, message: str) -> None:
    """The run ends in this one line before it trains, and its files stay as they are."""
    before = {path.name: path.read_bytes() for path in folder_of(config).iterdir()}
    with monkeypatch.context() as patch, pytest.raises(UserError, match=message) as error:
        patch.setattr(loop, "train_step", lambda *_: pytest.fail("trained"))
        run(config)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in folder_of(config).iterdir()} == before


def test_two_damaged_checkpoints_are_refused(unfinished, monkeypatch):
    config, folder = unfinished()
    for name in (NEWEST, PREVIOUS):
        (folder / name).write_bytes(DAMAGE["cut"]((folder / name).read_bytes()))
    refused(
        monkeypatch, config, rf"{NEWEST} cannot be read .*{PREVIOUS} cannot be read .*remove .* to start the run over"
    )


def test_another_schema_is_refused(unfinished, monkeypatch):
    config, folder = unfinished()
    monkeypatch.setattr("adept.training.resume.SCHEMA", SCHEMA + 1)
    refused(monkeypatch, config, r"is of schema 2, not 3: another version of adept")
    for name in (NEWEST, PREVIOUS):
        save_file({"weights": torch.ones(3)}, folder / name)
    refused(monkeypatch, config, r"is of schema None, not 3: another version of adept, or another program, wrote it")


def test_another_runs_checkpoint_is_refused(unfinished, monkeypatch):
    (config, folder), (other, elsewhere) = unfinished(), unfinished(seed=7)
    for name in (NEWEST, PREVIOUS):
        (elsewhere / name).write_bytes((folder / name).read_bytes())
    refused(monkeypatch, other, rf"is of another run: its run_id is {config.run_id}, not {other.run_id}")


def test_changed_data_are_refused(unfinished, make_config, monkeypatch, tmp_path, data_dir):
    config, _ = unfinished()
    rows = tmp_path / "data" / "rte"
    rows.mkdir(parents=True)
    for path in (Path(data_dir) / "rte").iterdir():
        (rows / path.name).write_text(path.read_text().replace("ferry", "bus"))
    other = make_config("t5", "adept", steps=4, save_every=1, eval_every=4, **RATES, data_dir=str(rows.parent))
    assert other.run_id == config.run_id
    refused(monkeypatch, other, "is of another run: its data_fingerprint is")


def rewrite(path: Path, change) -> None:
    """change(JSON, tensors) of a checkpoint, with the checksum right again."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    stored = json.loads(metadata["state"])
    stored = change(stored, tensors) or stored
    text = stored if isinstance(stored, str) else json.dumps(stored)
    save_file(tensors, path, {**metadata, "state": text, "crc": checksum(tensors, text)})


def in_state(**fields):
    return lambda stored, _: stored["state"].update(fields)


def of_tensors(**changes):
    """Tensors by the end of their names: None removes one."""

    def change(_, tensors):
        for end, value in changes.items():
            for name in [name for name in tensors if name.endswith(end)]:
                tensors.pop(name) if value is None else tensors.update({name: value(tensors[name])})

    return change


FORGED = {
    "no JSON": (lambda *_: "{", "holds no JSON"),
    "brackets": (lambda *_: "[" * 100_000, "holds no JSON"),
    "a list": (lambda *_: [1], "lacks one of code, state, random"),
    "no state": (lambda stored, _: stored.pop("state") and None, "lacks one of code, state, random"),
    "a state without a field": (
        lambda stored, _: stored["state"].pop("tokens") and None,
        "holds no 'tokens' as this version of adept",
    ),
    "no run": (lambda stored, _: stored.pop("run_id") and None, "its run_id is None, not "),
    "a word for a step": (in_state(step="3"), "holds no 'step' as"),
    "a step below zero": (in_state(step=-1), "holds no 'step' as"),
    "endless seconds": (in_state(train_seconds=float("inf")), "holds no 'train_seconds' as"),
    "a history of numbers": (in_state(history=[1]), "holds no 'history' as"),
    "a best without a step": (in_state(best={"validation": {"accuracy": 50.0}}), "holds no 'best' as"),
    "a best without weights": (
        in_state(best={"step": 2, "validation": {"accuracy": 50.0}}),
        "does not fit the model: best/",
    ),
    "a weight of another shape": (
        of_tensors(w_up=lambda tensor: tensor.reshape(-1)),
        "does not fit the model: .*w_up differs",
    ),
    "a weight of another type": (
        of_tensors(w_up=lambda tensor: tensor.long()),
        "does not fit the model: .*w_up differs",
    ),
    "no weight": (
        lambda _, tensors: tensors.pop(min(n for n in tensors if n.startswith("weights/"))) is None,
        "does not fit the model: w",
    ),
    "half of AdamW": (
        lambda _, tensors: tensors.pop(min(n for n in tensors if "exp_avg/" in n)) is None,
        "does not fit the model: opt",
    ),
    "a tensor too many": (
        lambda _, tensors: tensors.update(more=torch.ones(1)),
        "does not fit the model: more differs",
    ),
    "no losses": (of_tensors(losses=None), "does not fit the model: losses differs"),
    "no random numbers": (of_tensors(**{"random/cpu": None}), "does not fit the model: random/cpu differs"),
    "random numbers that are none": (
        of_tensors(**{"random/cpu": torch.zeros_like}),
        "random generators .*Invalid mt19937 state",
    ),
    "numpy beyond its numbers": (
        lambda stored, _: stored["random"]["numpy"].__setitem__(2, 10**6),
        "place 1000000 is beyond",
    ),
    "another Python's random numbers": (
        lambda stored, _: stored["random"]["python"].__setitem__(0, 99),
        "state with version 99",
    ),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_checkpoint_of_other_content_is_refused_in_spite_of_its_checksum(unfinished, monkeypatch, kind):
    (config, folder), (change, message) = unfinished(), FORGED[kind]
    for name in (NEWEST, PREVIOUS):
        rewrite(folder / name, change)
    refused(monkeypatch, config, rf"{message}.*{PREVIOUS} .*remove .* to start the run over")


def test_a_rewritten_checkpoint_is_read(unfinished, make_config, tmp_path):
    """So that what refuses the forged ones is what was changed in them."""
    config, folder = unfinished()
    rewrite(folder / NEWEST, lambda *_: None)
    undisturbed = make_config("t5", "adept", steps=4, eval_every=4, **RATES, results_dir=str(tmp_path / "undisturbed"))
    run(undisturbed)
    run(config)
    assert outcome(config) == outcome(undisturbed)


def test_nothing_is_unpickled():
    source = (ROOT / "adept" / "training" / "resume.py").read_text()
    assert "torch.load" not in source and "pickle" not in source.replace("Nothing is pickled.", "")


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def control_c():
    """Ctrl-C works as in a terminal. A shell that starts the tests with & would make them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def signalled(monkeypatch, name: str, call: int, number: int) -> None:
    """The signal comes in the `call`-th call of the function `name` of OWNERS, before what it does."""
    original, calls = getattr(OWNERS[name], name), itertools.count(1)

    def interrupted(*arguments, **keywords):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return original(*arguments, **keywords)

    monkeypatch.setattr(OWNERS[name], name, interrupted)


@pytest.mark.parametrize(
    ("name", "call", "number", "step"),
    [
        ("train_step", 2, signal.SIGTERM, 2),  # the step is finished
        ("train_step", 3, signal.SIGUSR1, 3),
        ("train_step", 1, signal.SIGINT, 1),
        ("most_likely_labels", 1, signal.SIGTERM, 2),  # the evaluation is not
        ("most_likely_labels", 4, signal.SIGUSR1, 5),  # the test is not
    ],
)
def test_a_signal_saves_and_the_same_command_goes_on(
    make_config, monkeypatch, tmp_path, capsys, name, call, number, step
):
    monkeypatch.setitem(LEAST_FULL, "cpu", 0.0)  # an evaluation is one batch
    fields = {"bottleneck_dropout": 0.1, "steps": 5, "eval_every": 2, "log_every": 3, **RATES}
    undisturbed = make_config("t5", "adept", **fields, results_dir=str(tmp_path / "undisturbed"))
    run(undisturbed)
    config = make_config("t5", "adept", **fields)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as stop:
        signalled(patch, name, call, number)
        if (name, call) == ("most_likely_labels", 1):
            patch.setattr(run_module, "evaluate", lambda *rest: evaluate(*rest) and pytest.fail("evaluated"))
        run(config)
    assert stop.value.code == 128 + number
    assert f"stopped by {signal.Signals(number).name}" in str(stop.value)
    assert f"goes on from step {step} of 5, which is saved" in str(stop.value)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == handlers
    run(config)
    assert f"goes on from step {step} of 5" in capsys.readouterr().err
    assert outcome(config) == outcome(undisturbed)


def test_a_signal_while_loading_ends_the_run_at_once(make_config, monkeypatch):
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM; finished runs are recorded, the same command goes on$"):
        signalled(monkeypatch, "open_sessions", 1, signal.SIGTERM)
        monkeypatch.setattr("adept.training.session.load_model", lambda *_, **__: pytest.fail("loaded"))
        run(make_config("t5", "pt"))


def test_a_signal_while_the_record_is_written_waits_for_it(make_config, monkeypatch):
    config, original = make_config("t5", "pt"), run_module.write_record

    def write(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(run_module, "write_record", write)
    with pytest.raises(Interrupted):
        run(config)
    assert run(config)["status"] == "completed"
    assert {path.name for path in folder_of(config).iterdir()} == {
        "adapter.safetensors",
        "adapter.json",
        "predictions.jsonl",
        "metrics.jsonl",
    }


def test_a_second_control_c_ends_a_step_that_does_not_end(make_config, monkeypatch):
    def stuck(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    monkeypatch.setattr(loop, "train_step", stuck)
    with pytest.raises(KeyboardInterrupt) as stop:
        run(make_config("t5", "pt"))
    assert not isinstance(stop.value, Interrupted)


def test_a_signal_that_is_ignored_stays_ignored(make_config, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and a shell's & do
    try:
        signalled(monkeypatch, "train_step", 1, signal.SIGINT)
        assert run(make_config("t5", "pt"))["status"] == "completed"
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_line_ends_with_the_signals_code_and_goes_on(make_config, tmp_path):
    """train.py as a process: SIGTERM in its training, 143, then the same command."""
    config = make_config("t5", "pt", steps=4000, eval_every=4000)
    flags = [
        f"--{name}={config.get(name)}"
        for name in ("task", "method", "model", "data_dir", "results_dir", "prompt_len", "steps")
    ]
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *flags,
        "--device=cpu",
        "--eval_every=4000",
        "--batch_size=4",
        "--max_source_len=64",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        metrics = folder_of(config) / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.1)
        process.terminate()
        errors = process.communicate(timeout=100)[1]
    finally:
        process.kill()
    assert process.returncode == 143
    assert "Traceback" not in errors and "stopped by SIGTERM; " in errors.splitlines()[-1]
    saved = read_state(folder_of(config) / NEWEST)["step"]
    assert 0 < saved < 4000 and f"goes on from step {saved} of 4000, which is saved" in errors.splitlines()[-1]
