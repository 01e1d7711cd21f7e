"""GPU hours of a dry run: a run's own speed, that of finished runs like it, or DePT's released logs."""

import json

from small_sweeps import load, write_table

from adept.runs.record import SCHEMA, write_record
from adept.tables.estimate import estimate_hours


def finish(run, rate: float, **provenance) -> None:
    record = {
        "schema": SCHEMA, "run_id": run.id, "config": run.config.flat(), "best_step": 4, "trainable_params": 7,
        "notes": [],
        "timing": {"steps_per_second": rate}, "validation": {}, "test": {}, "history": [], "provenance": provenance,
    }  # fmt: skip
    write_record(run.config.results_dir, json.loads(json.dumps(record)))


def test_any_model_counts_at_the_speed_of_finished_runs_like_it(tmp_path):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3], "steps": 36_000}, {"prompt_lr": 4, "batch_size": 9}])
    first, second, third, other = load(file).runs()
    assert estimate_hours([first, second]) == "0.0 GPU hours; 2 runs of other models are not counted"
    finish(first, 10.0)
    finish(other, 1.0)
    first, second, third, _ = load(file).runs()
    assert estimate_hours([first, second, third]) == (
        "3.0 GPU hours (1 at their own speed, 2 as finished runs like them)"
    )
    finish(second, 1000.0, stacked=8)  # shares its steps, so it tells no speed
    assert estimate_hours([third]) == "1.0 GPU hours (1 as finished runs like them)"


def test_t5_base_counts_as_the_released_logs_until_there_are_runs(tmp_path):
    file = write_table(tmp_path, [{"prompt_lr": 1}], model="t5-base", steps=9720, max_source_len=256)
    assert estimate_hours(load(file).runs()) == "1.0 GPU hours (1 as DePT's released T5-base logs)"
