"""What a dry run says of the time: the speed of finished runs like its own, best on the same device, or DePT's logs."""

import json

from small_sweeps import load, write_table

from adept.runs.record import SCHEMA, write_record
from adept.tables.estimate import estimate


def finish(run, rate: float, device: str = "NVIDIA H200", **provenance) -> None:
    record = {
        "schema": SCHEMA, "run_id": run.id, "config": run.config.flat(), "best_step": 4, "trainable_params": 7,
        "notes": [], "validation": {}, "test": {}, "history": [], "provenance": {"device": device, **provenance},
        "timing": {"steps_per_second": rate, "train_seconds": run.config.steps / rate, "eval_seconds": 1800},
    }  # fmt: skip
    write_record(run.config.results_dir, json.loads(json.dumps(record)))


def test_any_model_counts_at_the_speed_of_finished_runs_like_it(tmp_path):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3], "steps": 36_000}, {"prompt_lr": 4, "batch_size": 9}])
    first, second, third, other = load(file).runs()
    assert estimate([first, second], "cpu") == "2 runs, 0.0 hours, without 2 of models that have not run"
    finish(first, 10.0)
    finish(other, 1.0)
    first, second, third, _ = load(file).runs()
    assert estimate([first, second, third], "cpu, 2 threads") == (
        "2 of 3 runs are left, 2.0 hours (2 as finished runs like them on NVIDIA H200); "
        "1 are done and took 1.5 hours on NVIDIA H200"
    )
    finish(second, 1000.0, stacked=8)  # shares its steps, so it tells no speed
    assert estimate([third], "cpu, 2 threads") == "1 runs, 1.0 hours (1 as finished runs like them on NVIDIA H200)"


def test_runs_on_the_same_device_tell_most(tmp_path):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3], "steps": 36_000}])
    first, second, third = load(file).runs()
    finish(first, 10.0)
    finish(second, 1.0, device="cpu, 1 threads")
    *_, third = load(file).runs()
    assert estimate([third], "cpu, 2 threads") == "1 runs, 10.0 hours (1 as finished runs like them on cpu, 1 threads)"
    assert estimate([third], "NVIDIA H200") == "1 runs, 1.0 hours (1 as finished runs like them on NVIDIA H200)"
    assert estimate([third], "NVIDIA A100") == (
        "1 runs, 1.8 hours (1 as finished runs like them on NVIDIA H200 and cpu, 1 threads)"
    )


def test_t5_base_counts_as_the_released_logs_until_there_are_runs(tmp_path):
    file = write_table(tmp_path, [{"prompt_lr": 1}], model="t5-base", steps=9720, max_source_len=256)
    assert estimate(load(file).runs(), "cpu") == "1 runs, 1.0 hours (1 as DePT's released T5-base logs, on a GPU)"
