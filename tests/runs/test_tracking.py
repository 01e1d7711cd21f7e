"""metrics.jsonl, the mirror's life, and a real wandb run without a network."""

import json
from pathlib import Path

import pytest
import wandb

from adept.config.layers import resolve
from adept.methods import METHODS
from adept.runs.tracking.tracker import Tracker
from adept.training.loop import run


class Recorder:
    """A mirror that remembers its calls."""

    def __init__(self):
        self.calls = []

    def log(self, values, step):
        self.calls.append(("log", step, values))

    def summarise(self, values):
        self.calls.append(("summarise", values))

    def close(self, failed):
        self.calls.append(("close", failed))


@pytest.fixture
def tracked(tmp_path):
    """(tracker of an ADePT run, its mirror, its file)"""
    config = resolve({"task": "mrpc", "method": "adept", "steps": 20})
    mirror = Recorder()
    return (
        Tracker(config, tmp_path / "run", dict.fromkeys(METHODS["adept"].rates), mirror),
        mirror,
        tmp_path / "run" / "metrics.jsonl",
    )


def test_a_runs_life_in_metrics_jsonl_and_in_the_mirror(tracked, capsys):
    tracker, mirror, file = tracked
    best = {"step": 10, "validation": {"accuracy": 75.0, "f1": 70.0}}
    lines = [
        {"step": 10, "train/loss": 0.5, "train/prompt_lr": 0.3, "train/offset_lr": 1e-4},
        {"step": 10, "validation/accuracy": 75.0, "validation/f1": 70.0},
        {"step": 10, "best/accuracy": 75.0, "best/f1": 70.0, "test/accuracy": 60.0, "test/f1": 55.0},
    ]
    with tracker:
        tracker.step(10, 0.5, {r".*\.prompt": 0.3, r".*\.offset\..*": 1e-4})
        assert json.loads(file.read_text()) == lines[0]  # readable while the run goes on
        tracker.evaluated({"step": 10, "validation": best["validation"]}, best)
        tracker.finish(best, {"accuracy": 60.0, "f1": 55.0})
    assert [json.loads(line) for line in file.read_text().splitlines()] == lines
    logged = [("log", line["step"], {name: value for name, value in line.items() if name != "step"}) for line in lines]
    assert mirror.calls == [*logged, ("summarise", {"best_step": 10, **logged[2][2]}), ("close", False)]
    shown = capsys.readouterr()
    assert "step     10  validation accuracy 75.00  f1 70.00  (best 75.00@10)" in shown.err
    assert shown.out == ""


def test_a_failed_run_closes_its_mirror_as_failed_and_keeps_its_lines(tracked):
    tracker, mirror, file = tracked
    with pytest.raises(KeyboardInterrupt), tracker:
        tracker.step(1, 0.5, {r".*\.prompt": 0.3})
        raise KeyboardInterrupt
    assert mirror.calls[-1] == ("close", True)
    assert [json.loads(line)["train/loss"] for line in file.read_text().splitlines()] == [0.5]
    assert tracker.file.closed


def test_a_run_that_goes_on_adds_to_its_log_and_its_bar(tmp_path):
    config = resolve({"task": "mrpc", "method": "pt", "steps": 20})
    for start in (0, 10):
        with Tracker(config, tmp_path, dict.fromkeys(METHODS["pt"].rates), Recorder(), start) as tracker:
            assert tracker.bar.n == start
            tracker.step(start + 10, 0.5, {r".*\.prompt": 0.3})
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [10, 20]


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("pt", ["prompt_lr"]),
        ("dept", ["prompt_lr", "offset_lr"]),
        ("pt_table", ["prompt_lr", "lr"]),
        ("lora", ["lr"]),
        ("full", ["lr"]),
    ],
)
def test_rates_carry_the_names_of_their_fields(method, names, tmp_path):
    assert list(METHODS[method].rates.values()) == names
    tracker = Tracker(
        resolve({"task": "rte", "method": method}), tmp_path, dict.fromkeys(METHODS[method].rates), Recorder()
    )
    with tracker:
        tracker.step(1, 0.5, dict.fromkeys(METHODS[method].rates, 0.1))
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 1, "train/loss": 0.5, **{f"train/{name}": 0.1 for name in names}}


def test_wandb_offline_writes_a_run_that_can_be_compared(make_config, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    given, init = {}, wandb.init
    monkeypatch.setattr(wandb, "init", lambda **arguments: given.update(arguments) or init(**arguments))

    config = make_config("t5", "adept", track="wandb", steps=2, eval_every=1)
    record = run(config)

    (written,) = (tmp_path / "results" / "runs" / config.run_id / "wandb").glob("offline-run-*/*.wandb")
    assert written.stat().st_size > 0
    assert (given["project"], given["group"], given["name"]) == ("adept", "rte-tiny-t5", config.run_id)
    assert (given["id"], given["resume"]) == (config.run_id, "allow")  # a run that goes on is the same one there
    assert given["tags"] == ["rte", "adept", "tiny-t5", "paper"]
    assert given["config"]["prompt_lr"] == 0.3
    assert {name: given["config"][name] for name in ("run_id", "trainable_params", "total_params")} == {
        name: record[name] for name in ("run_id", "trainable_params", "total_params")
    }
    assert wandb.run is None  # finished


def test_wandb_writes_beside_each_run_of_a_process_that_changes_its_folder(make_config, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("first", "second"):  # wandb's own process, which writes the files, is started once
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        config = make_config("t5", "adept", track="wandb", steps=1, results_dir="results")
        run(config)
        assert list(Path("results/runs", config.run_id, "wandb").glob("offline-run-*/*.wandb")), name
