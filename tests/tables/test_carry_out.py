"""A sweep in this process: failures, other sweeps on the same folder, signals, early stopping."""

import json
import os
import signal

import pytest
from small_sweeps import files, load, records, sweep, write_table

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError
from adept.config.run import RunConfig
from adept.runs.claim import RunClaimed
from adept.runs.record import SCHEMA, write_record
from adept.tables.early_stopping import EarlyStopping, stopped_path
from adept.tables.launchers.in_process import InProcess
from adept.tables.launchers.launcher import STOPPED
from adept.tables.launchers.run_stack import run_stack
from adept.tables.sweep import Progress, Started, carry_out, duration
from adept.training.evaluation import evaluate
from adept.training.step import train_step


def write_made_up_record(config: RunConfig) -> None:
    scores = {"accuracy": 50.0}
    record = {
        "schema": SCHEMA, "run_id": config.run_id, "config": config.flat(), "best_step": 4, "trainable_params": 7,
        "notes": [], "sizes": {"train": 9, "validation": 9, "test": 900}, "timing": {}, "validation": scores,
        "test": scores, "history": [{"step": 4, "validation": scores}],
    }  # fmt: skip
    write_record(config.results_dir, record)


@pytest.fixture
def fake_runs(monkeypatch):
    """fake_runs(r1=..., r2=...) replaces training by what the test says for each prompt rate, and returns the rates.

    An exception is raised, None writes a record; a list has one of them for each attempt.
    """

    def install(**by_rate):
        calls = []

        def train(config):
            rate = f"r{config.prompt_lr:g}"
            calls.append(rate)
            end = by_rate.get(rate)
            if isinstance(end, list):
                end = end.pop(0) if end else None
            if end is not None:
                raise end
            write_made_up_record(config)

        def train_runs(jobs):
            ends = []
            for config, _ in jobs:
                try:
                    ends.append(train(config))
                except Exception as error:
                    ends.append(error)
            return ends

        monkeypatch.setattr("adept.tables.launchers.run_stack.train_runs", train_runs)
        return calls

    return install


def test_a_failed_run_is_tried_once_more_and_then_listed(tmp_path, fake_runs, short_polls, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3, 4]}])
    calls = fake_runs(r1=[OSError("once")], r2=RuntimeError("always\nand again"), r3=UserError("a mistake"))
    assert sweep(file) == 2
    assert sorted(calls) == ["r1", "r1", "r2", "r2", "r3", "r4"]  # a user's mistake is not tried twice
    shown = capsys.readouterr()
    listed = shown.err.splitlines()[-6:]
    ids = {rate: run.id for rate, run in zip("1234", load(file).runs(), strict=True)}
    first = listed.index(f"error: {ids['2']} failed: RuntimeError: always and again")
    details = listed[first + 1 : first + 4]
    assert all(line.startswith("    ") for line in details) and "RuntimeError: always" in "".join(details)
    assert listed[-1] == f"error: {ids['3']} failed: a mistake"
    assert f"{ids['1']}: failed, once more: OSError: once" in shown.err
    assert "failed 2 · left 0" in shown.err
    assert "2 of 4 runs are missing" in shown.out
    assert [record["run_id"] for record in records(file)] == sorted([ids["1"], ids["4"]])


def test_finished_runs_skip_themselves_and_the_line_counts(tmp_path, fake_runs, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3]}])
    fake_runs()
    write_made_up_record(load(file).runs()[1].config)
    calls = fake_runs()
    assert carry_out([load(file)], InProcess()) == {}
    assert calls == ["r1", "r3"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("done")]
    assert lines[0] == "done 1 of 3 · running 1 · failed 0 · left 1"
    assert lines[1] == "done 2 of 3 · running 1 · failed 0 · left 0 · 0 s to go"
    assert lines[2] == "done 3 of 3 · running 0 · failed 0 · left 0"


class Shared:
    """Two stacks at a time on one device; the oldest ends first. `together`: the runs after each start."""

    slots, on_gpu, shares_devices = 2, False, True

    def __init__(self):
        self.running, self.together = [], []

    def submit(self, stack):
        self.running += [config for config, _ in stack]
        self.together.append([(config.method, config.prompt_lr, config.steps) for config in self.running])

    def wait(self, seconds):
        config = self.running.pop(0)
        write_made_up_record(config)
        return [(config.run_id, None)]


def test_a_run_whose_time_is_printed_has_its_device_for_itself(tmp_path):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3]}])
    keys = {"columns": "quantity", "quantities": ["score", "ms/step"], "timed": {"steps": 1}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))
    launcher = Shared()
    assert carry_out([load(file)], launcher) == {}
    beside = [[rate for _, rate, steps in runs if steps != 1] for runs in launcher.together]
    timed = [[rate for _, rate, steps in runs if steps == 1] for runs in launcher.together]
    assert beside == [[1], [1, 2], [2, 3], [], [], []] and timed == [[], [], [], [1], [2], [3]]


def test_the_time_to_go_is_that_of_the_runs_done(tmp_path):
    runs = load(write_table(tmp_path, [{"prompt_lr": [1, 2, 3, 4, 5]}])).runs()
    progress = Progress(slots=2, seconds=[600.0, 1200.0])
    progress.running = {runs[0].id: Started(runs[0], frozenset([runs[0].id]))}
    assert (
        progress.line(runs) == "done 0 of 5 · running 1 · failed 0 · left 4 · 45 min to go"
    )  # three rounds of a quarter of an hour
    assert [duration(seconds) for seconds in (9, 100, 3600 * 5 + 1700)] == ["9 s", "2 min", "5 h 28 min"]


def test_a_run_that_another_sweep_has_is_waited_for(tmp_path, fake_runs, short_polls):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}])
    calls = fake_runs(r1=[RunClaimed("taken"), RunClaimed("taken"), RunClaimed("taken")])
    assert carry_out([load(file)], InProcess()) == {}
    assert calls == ["r1", "r2", "r1", "r1", "r1"]
    assert len(records(file)) == 2


def test_runs_that_wait_for_a_failed_one_are_told(tmp_path, fake_runs, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}], rows="method", seeds=(1, 2, 3))
    fake_runs(r2=ValueError("no"))
    assert sweep(file) == 2
    err = capsys.readouterr().err
    assert "left 2 (2 wait for validation to choose)" in err
    assert err.splitlines()[-1].startswith("error: 2 runs wait for those that failed")


def test_a_record_that_is_not_in_the_folder_is_a_failure(tmp_path, monkeypatch, short_polls):
    file = write_table(tmp_path, [{"prompt_lr": 1}])
    monkeypatch.setattr("adept.tables.launchers.run_stack.train_runs", lambda jobs: [{} for _ in jobs])
    ((_, why),) = carry_out([load(file)], InProcess()).items()
    assert "do the machines share this folder?" in why


def test_several_tables_are_carried_out_together(tmp_path, fake_runs):
    one = load(write_table(tmp_path, [{"prompt_lr": [1, 2]}]))
    two = load(write_table(tmp_path, [{"prompt_lr": [2, 3]}]))
    calls = fake_runs()
    assert carry_out([one, two], InProcess()) == {}
    assert calls == ["r1", "r2", "r3"]


def test_sigterm_saves_the_run_in_hand_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [0.1, 0.2]}], steps=6, eval_every=3)
    steps = []

    def signalled(*rest):
        steps.append(1)
        if len(steps) == 8:  # the second step of the second run
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*rest)

    monkeypatch.setattr("adept.training.loop.train_step", signalled)
    before = signal.getsignal(signal.SIGTERM)
    assert sweep(file, "--launch", "here") == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err.splitlines()[-1].endswith("from step 2 of 6, which is saved")
    assert [len(records(file)), len(files(file, "checkpoint.safetensors"))] == [1, 1]
    assert sweep(file, "--launch", "here") == 0
    assert len(steps) == 8 + 4
    assert len(records(file)) == 2


# Early stopping -------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(monkeypatch):
    """Validation scores by prompt rate, as if they had been measured."""
    by_rate = {}

    def fake(session, examples, scoring=None):
        scores, predictions = evaluate(session, examples, scoring)
        return dict.fromkeys(scores, by_rate[session.config.prompt_lr]), predictions

    monkeypatch.setattr("adept.training.run.evaluate", fake)
    return by_rate


def test_hopeless_grid_points_are_stopped_and_go_on_without_the_flag(tmp_path, scored, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3, 4]}], rows="method", seeds=(7, 8), steps=9, eval_every=1)
    scored |= {1.0: 50.0, 2.0: 60.0, 3.0: 10.0, 4.0: 70.0}
    assert sweep(file, "--early_stopping") == 0
    done = {(record["config"]["prompt_lr"], record["config"]["seed"]) for record in records(file)}
    assert done == {(1.0, 7), (2.0, 7), (4.0, 7), (4.0, 8)}  # 3.0 was the last of the three that had reached its rung
    (note,) = files(file, "stopped.json")
    assert json.loads(note.read_text()) == {"step": 1, "score": 10.0, "rung": "1/9", "better": 2, "reached": 3}
    shown = capsys.readouterr()
    assert (
        f"{note.parent.name}: stopped early" in shown.err and "done 4 of 5 · stopped early 1 · running 0" in shown.err
    )
    assert "1 configurations were stopped early" in shown.out and "missing" not in shown.out
    (kept,) = files(file, "checkpoint.safetensors")
    assert kept.parent == note.parent

    assert sweep(file, "--early_stopping") == 0  # nobody tries it again
    assert "running 1" not in capsys.readouterr().err
    assert len(records(file)) == 4
    assert sweep(file) == 0
    assert "goes on from step 1 of 9" in capsys.readouterr().err
    assert len(records(file)) == 5 and not files(file, "stopped.json")


def test_a_run_that_another_sweep_stopped_since_is_not_begun(tmp_path, monkeypatch):
    config = load(write_table(tmp_path, [{"prompt_lr": 1}])).runs()[0].config
    write_atomically(stopped_path(config), "{}")
    monkeypatch.setattr("adept.training.loop.open_sessions", lambda *_: pytest.fail("it was begun"))
    assert run_stack([(config, EarlyStopping(config, ("a", "b")))]) == [STOPPED]


# Several workers of one sweep -----------------------------------------------------------------------------------------


def test_what_one_worker_gives_up_the_others_of_its_array_do_not_try(tmp_path, fake_runs, monkeypatch, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}])
    calls = fake_runs(r1=UserError("a mistake"))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    for _ in range(2):
        assert sweep(file) == 2 and calls == ["r1", "r2"]
    assert "a mistake" in capsys.readouterr().err
    (failed,) = files(file, "failed.json")
    assert json.loads(failed.read_text())["reason"] == "a mistake"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "8")  # a later sweep tries again
    calls.clear()
    assert sweep(file) == 2 and calls == ["r1"]
    fake_runs()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "9")
    assert sweep(file) == 0 and not files(file, "failed.json")


def test_an_element_of_an_array_ends_where_others_do_all_that_is_left(tmp_path, fake_runs, monkeypatch, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}])
    fake_runs(r1=RunClaimed("elsewhere"))
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert sweep(file) == 0
    assert "other workers are doing all runs that are left" in capsys.readouterr().err
    assert len(records(file)) == 1


def test_a_mistake_in_a_stack_is_tried_again_alone(tmp_path, fake_runs):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}])
    calls = fake_runs(r1=[UserError("of the other run")])
    assert sweep(file, "--stack", "2") == 0 and sorted(calls) == ["r1", "r1", "r2"]


def test_records_of_finished_runs_are_read_once(tmp_path, fake_runs, monkeypatch):
    from adept.runs import record

    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3, 4]}])
    fake_runs()
    reads, check = [], record.check_record
    monkeypatch.setattr(record, "check_record", lambda content, path: reads.append(path.stem) or check(content, path))
    assert sweep(file) == 0
    assert all(reads.count(name) <= 4 for name in reads)  # one each by the sweep, its end, the report and the line
