"""History, scores and adapter of a run in two processes are those of one process. On CPUs, through gloo."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import FAMILIES, ROOT, SIZES
from pair import carry_out
from safetensors.torch import load_file

from adept.base import distributed
from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.config.run import RunConfig
from adept.data.batches import make_batch
from adept.data.dataset import load_data
from adept.data.example import IGNORED
from adept.runs.layout import run_folder
from adept.runs.record import read_record
from adept.training.session import open_session
from adept.training.stack import Stack

METHODS = ("adept", "pt", "dept", "lora")
RATES = {
    "adept": {"prompt_lr": 0.03, "offset_lr": 1e-2},
    "pt": {"prompt_lr": 0.03},
    "dept": {"prompt_lr": 0.03, "offset_lr": 0.1},
}
DROPOUT = {"model_dropout": 0.1, "bottleneck_dropout": 0.1}
SHARDED = [
    ("t5", "adept", "likelihood"),
    ("t5", "lora", "generate"),
    ("llama", "adept", "generate"),
    ("codegen", "dept", "generate"),
]


def torchrun(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


@pytest.fixture(scope="module")
def jobs(model_folders, data_dir, tmp_path_factory) -> dict[tuple, dict]:
    """{name: a run for tests/pair.py}; 24 rows in batches of 5: no batch divides, and the last one has 4."""
    folder = str(tmp_path_factory.mktemp("two"))

    def job(family: str, method: str, fields: dict, **how) -> dict:
        common = {
            "task": "rte", "method": method, "model": model_folders[family], "data_dir": data_dir,
            "results_dir": folder, "device": "cpu", "steps": 7, "eval_every": 3, "batch_size": 5, "max_source_len": 64,
            "log_every": 2, "model_dropout": 0, "scoring": "likelihood", "eps": 1e-2, "eval_batch_size": 3,
        }  # fmt: skip
        quiet = {"lora_dropout": 0, "lr": 1e-2} if method == "lora" else {}
        config = resolve({**common, **SIZES[method], **RATES.get(method, {}), **quiet, **fields})
        return {"config": config.flat(), **how}

    made = {
        (family, method): job(family, method, {"grad_accum": 1 + (method in ("adept", "lora"))}, float64=True)
        for family in FAMILIES
        for method in METHODS
    }
    made |= {
        ("sharded", *case): job(*case[:2], {"scoring": case[2], "shard_model": True, "seed": 7}) for case in SHARDED
    }
    made["few"] = job(
        "t5", "adept", {"batch_size": 1, "checkpoint_activations": True}
    )  # the second process has no row of its own
    made["full"] = job("t5", "full", {"lr": 1e-3})
    lives = {"seed": 5, "save_every": 2, **DROPOUT}
    made["undisturbed"] = job("t5", "adept", {**lives, "results_dir": folder + "/undisturbed"})
    made["killed"] = job("t5", "adept", {**lives, "results_dir": folder + "/killed"}, dies=6)
    made["stopped"] = job("t5", "adept", {**lives, "results_dir": folder + "/stopped"}, signal=(4, 1, signal.SIGTERM))
    return made


@pytest.fixture(scope="module")
def messages(jobs, tmp_path_factory) -> dict[tuple, tuple[str, str]]:
    """{name: what each process says of the run's first life}; the runs are done."""
    path = tmp_path_factory.mktemp("pair") / "jobs.json"
    path.write_text(json.dumps(list(jobs.values())))
    done = torchrun(str(ROOT / "tests" / "pair.py"), str(path))
    assert done.returncode == 0, done.stderr[-4000:]
    both = [json.loads(path.with_name(f"messages.{rank}.json").read_text()) for rank in (0, 1)]
    return dict(zip(jobs, zip(*both, strict=True), strict=True))


def outcome(config: RunConfig) -> tuple[dict, dict[str, torch.Tensor], str]:
    """(the record without what time and place decide, the adapter, the predictions)."""
    record, folder = read_record(config.results_dir, config.run_id), run_folder(config.results_dir, config.run_id)
    for entry in record["history"]:
        del entry["seconds"]
    kept = (
        "run_id",
        "history",
        "best_step",
        "validation",
        "test",
        "sizes",
        "trainable_params",
        "total_params",
        "param_groups",
        "notes",
    )
    return (
        {name: record[name] for name in kept},
        load_file(folder / "adapter.safetensors"),
        (folder / "predictions.jsonl").read_text(),
    )


def assert_as_in_one_process(job: dict, messages, tmp_path, **tolerance) -> None:
    """tolerance: of the adapter's tensors; losses are reported, and so compared, in float32."""
    two = RunConfig.from_record(job["config"])
    one = two.replace(results_dir=str(tmp_path / "one"), shard_model=False, checkpoint_activations=False)
    carry_out(one, float64=job.get("float64", False))
    (ours, weights, predictions), (theirs, expected, lines) = outcome(two), outcome(one)
    for entry, other in zip(ours["history"], theirs["history"], strict=True):
        assert entry.pop("train_loss") == pytest.approx(other.pop("train_loss"), rel=2e-6)
    assert (ours, predictions) == (theirs, lines)
    assert read_record(two.results_dir, two.run_id)["provenance"]["processes"] == 2
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], **tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_end_as_one_in_float64(jobs, messages, tmp_path, family, method):
    # Causal models compute their norms or attention in float32 whatever comes, and each process its own part of the
    # prompt's gradient.
    tolerance = {
        "t5": {"rtol": 1e-9, "atol": 1e-11},
        "llama": {"rtol": 1e-5, "atol": 1e-7},
        "codegen": {"rtol": 1e-5, "atol": 1e-6},
    }
    assert_as_in_one_process(jobs[family, method], messages, tmp_path, **tolerance[family])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["few", "full", *[("sharded", *case) for case in SHARDED]], ids=str)
def test_two_processes_end_as_one_in_float32(jobs, messages, tmp_path, name):
    assert_as_in_one_process(jobs[name], messages, tmp_path, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_two_processes_go_on_as_if_undisturbed(jobs, messages, name):
    """Bit for bit, dropout included, which each process draws for its own rows."""
    config, undisturbed = (RunConfig.from_record(jobs[which]["config"]) for which in (name, "undisturbed"))
    (ours, weights, predictions), (theirs, expected, lines) = outcome(config), outcome(undisturbed)
    assert (ours, predictions) == (theirs, lines)
    assert all(torch.equal(weights[tensor], expected[tensor]) for tensor in expected)
    resumed = read_record(config.results_dir, config.run_id)["provenance"]["resumed"]
    assert [entry["step"] for entry in resumed] == [4]
    assert {path.name for path in run_folder(config.results_dir, config.run_id).iterdir()} == {
        "adapter.safetensors", "adapter.json", "predictions.jsonl", "metrics.jsonl",
    }  # fmt: skip


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_between_the_same_steps(messages):
    line = "stopped by SIGTERM; finished runs are recorded, the same command goes on from step 4 of 7, which is saved"
    assert messages["stopped"] == (line, line)


@pytest.mark.slow
def test_a_mistake_is_told_once_and_a_run_prints_once(model_folders, data_dir, tmp_path):
    flags = [
        "--task=rte",
        f"--model={model_folders['t5']}",
        f"--data_dir={data_dir}",
        f"--results_dir={tmp_path}",
        "--device=cpu",
    ]
    flags += ["--steps=1", "--eval_rows=4", "--max_source_len=64", "--prompt_len=5", "--bottleneck=3"]
    done = torchrun(str(ROOT / "train.py"), *flags)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1 and "trained parameters" in done.stdout
    wrong = torchrun(str(ROOT / "train.py"), *flags, "--seed=1", "--init_from=nothing")
    assert wrong.returncode and [line for line in wrong.stderr.splitlines() if line.startswith("error: ")] == [
        f"error: no adapter 'nothing': looked for adapter.safetensors in nothing and {tmp_path}/runs/nothing"
    ]


@pytest.mark.slow
def test_a_process_that_fails_alone_ends_the_other(jobs, tmp_path):
    """The second is killed in its third step, while the first waits for its gradients. torchrun then ends the first."""
    path = tmp_path / "jobs.json"
    job = json.loads(json.dumps(jobs["few"]))
    job["config"]["results_dir"] = str(tmp_path)
    path.write_text(json.dumps([{**job, "signal": (3, 1, signal.SIGKILL)}]))
    done = torchrun(str(ROOT / "tests" / "pair.py"), str(path), timeout=100)
    assert done.returncode and "another process of this run ended" in done.stderr
    assert read_record(str(tmp_path), RunConfig.from_record(job["config"]).run_id) is None


# In one process -------------------------------------------------------------------------------------------------------


def test_rows_are_shared_out_and_fillers_have_no_labels(make_config, monkeypatch):
    session = open_session(make_config("llama", "adept"))
    rows = session.codec.encode(load_data(session.task, session.config).train[:5])
    whole = make_batch(session.codec, rows)
    parts = []
    for rank in (0, 1, 2):
        monkeypatch.setattr(distributed, "RANK", rank)
        monkeypatch.setattr(distributed, "WORLD", 3)
        parts.append(make_batch(session.codec, rows))
        assert (parts[-1].ids, parts[-1].tokens) == (whole.ids, whole.tokens)
        assert torch.equal(parts[-1].inputs["targets"], whole.inputs["targets"])
        assert torch.equal(parts[-1].inputs["logits_to_keep"], whole.inputs["logits_to_keep"])
    monkeypatch.undo()
    for name in ("input_ids", "attention_mask", "labels", "shift_labels"):
        for row in range(5):
            assert torch.equal(parts[row % 3].inputs[name][row // 3], whole.inputs[name][row])
    assert (parts[2].inputs["labels"][1] == IGNORED).all() and (whole.inputs["labels"] != IGNORED).any(1).all()
    losses = [Stack([session]).losses([part.inputs]) for part in parts]
    torch.testing.assert_close(sum(losses), Stack([session]).losses([whole.inputs]))


@pytest.mark.parametrize(
    ("world", "method", "fields", "line"),
    [
        (1, "adept", {"shard_model": True}, "--shard_model shares the model out over several processes: torchrun"),
        (
            2,
            "full",
            {"shard_model": True},
            "--shard_model shares out frozen weights, but method 'full' trains the model's own",
        ),
        (2, "pt_table", {"shard_model": True}, "but method 'pt_table' trains the model's own"),
        (2, "adept", {"device": "cpu:0"}, "--device cpu:0 is one device, but torchrun started 2 processes"),
    ],
)
def test_what_does_not_fit_the_number_of_processes_is_refused(make_config, monkeypatch, world, method, fields, line):
    monkeypatch.setattr(distributed, "WORLD", world)
    with pytest.raises(UserError, match=line):
        open_session(make_config("t5", method, **fields))


def test_other_launchers_variables_start_nothing(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    distributed.initialize()
    assert (distributed.RANK, distributed.WORLD) == (0, 1) and not torch.distributed.is_initialized()
