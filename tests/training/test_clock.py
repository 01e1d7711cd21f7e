"""What a run measures: its time, between points at which the device has nothing left to do, and its memory."""

import time

import pytest
import torch
from pair import before_step

from adept.models.precision import tf32_products
from adept.training import clock, evaluation, loop
from adept.training.clock import TrainingClock
from adept.training.loop import run, train_runs
from adept.training.memory import process_memory, reset_peak_memory
from adept.training.session import open_session
from adept.training.step import train_step


class Device:
    """A device that works on its own: what it is given takes time only for who waits for it."""

    def __init__(self):
        self.now, self.busy_until = 0.0, 0.0

    def perf_counter(self) -> float:
        return self.now

    def launch(self, seconds: float) -> None:
        self.busy_until = max(self.busy_until, self.now) + seconds

    def synchronize(self, _=None) -> None:
        self.now = max(self.now, self.busy_until)


@pytest.fixture
def device(monkeypatch) -> Device:
    """A device on which a training step takes 3 s and an evaluation 100 s; the host takes no time at all."""
    made = Device()
    monkeypatch.setattr("time.perf_counter", made.perf_counter)
    monkeypatch.setattr(clock, "synchronize", made.synchronize)

    def asynchronous_step(*arguments):
        made.launch(3.0)
        return train_step(*arguments)

    def slow_evaluate(*arguments):
        made.launch(100.0)
        made.synchronize()  # predictions are read
        return evaluation.evaluate(*arguments)

    monkeypatch.setattr(loop, "train_step", asynchronous_step)
    monkeypatch.setattr("adept.training.run.evaluate", slow_evaluate)
    return made


def test_time_is_the_devices_not_the_hosts(make_config, device):
    record = run(make_config(steps=4, eval_every=2, log_every=100))
    assert record["timing"]["train_seconds"] == 12.0 and record["timing"]["eval_seconds"] == 300.0
    assert record["timing"]["steps_per_second"] == pytest.approx(1 / 3, abs=1e-3)
    assert [entry["seconds"] for entry in record["history"]] == [106.0, 212.0]


def test_stacked_runs_share_the_time_of_their_steps(make_config, device):
    records = train_runs([(make_config(seed=seed), None) for seed in (1, 2, 3)])
    assert [record["timing"]["train_seconds"] for record in records] == [4.0, 4.0, 4.0]
    assert [record["timing"]["eval_seconds"] for record in records] == [300.0] * 3


def test_a_resumed_run_counts_the_time_before_and_after(make_config, device):
    config = make_config(save_every=1)

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), before_step(4, killed):
        run(config)
    assert run(config)["timing"]["train_seconds"] == 12.0


def test_waiting_for_batches_counts_and_pauses_do_not(monkeypatch):
    monkeypatch.setattr("time.perf_counter", (now := Device()).perf_counter)
    watch = TrainingClock(torch.device("cpu"))
    now.now = 2.0  # the batch was late
    watch.count_step(["run"])
    with watch.paused():
        now.now = 50.0
    now.now = 51.0
    watch.count_step(["run", "other"])
    watch.settle()
    assert watch.seconds == {"run": 2.5, "other": 0.5}


# Precision ------------------------------------------------------------------------------------------------------------


def switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_tf32_belongs_to_a_step_not_to_the_process(make_config, monkeypatch):
    seen = []
    original = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda *a, **k: seen.append(switches()) or original(*a, **k))
    before = switches()
    for precision in ("tf32", "fp32", "tf32"):
        run(make_config(precision=precision, steps=1, seed=len(seen)))
        assert switches() == before
    assert seen == [(True, True), (False, False), (True, True)]


@pytest.mark.parametrize("order", [("tf32", "fp32"), ("fp32", "tf32")])
def test_sessions_of_two_precisions_side_by_side(make_config, order):
    sessions = {precision: open_session(make_config(precision=precision)) for precision in order}
    for precision, session in sessions.items():
        with session.autocast():
            assert switches() == (precision == "tf32",) * 2


def test_the_switches_are_as_before_after_an_error():
    before = switches()
    with pytest.raises(ZeroDivisionError), tf32_products(not before[0]):
        _ = 1 / 0
    assert switches() == before


def test_the_bench_leaves_no_switch_set():
    from adept.bench import timing

    before = switches()
    started = time.perf_counter()
    timing.measure_matmul_peak(torch.device("meta"), "tf32")
    assert switches() == before and time.perf_counter() - started < 10


# Memory ---------------------------------------------------------------------------------------------------------------


def test_peak_memory_is_the_runs_own_not_the_largest_of_the_process(make_config):
    if not reset_peak_memory(torch.device("cpu")):
        pytest.skip("this system does not tell a process's peak")
    ballast = torch.ones(100_000_000)  # 400 MB, which an earlier run had
    del ballast
    before = process_memory()["VmHWM"]
    assert run(make_config(steps=1))["peak_memory_bytes"] < before - 200e6


def test_a_peak_that_cannot_be_measured_is_left_out(make_config, monkeypatch):
    monkeypatch.setattr("adept.training.run.reset_peak_memory", lambda _: False)
    assert "peak_memory_bytes" not in run(make_config(steps=1))
