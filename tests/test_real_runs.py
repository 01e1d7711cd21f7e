"""One training step and a small evaluation of every task with the real bundled model."""

import json

import pytest
from conftest import SHARED

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.metrics.sandbox.caller import require_protection
from adept.tasks import TASKS
from adept.training.loop import run


def rows_for(name: str, fixtures: str) -> str:
    """The folder with the task's real rows if there are enough of them beside the checkout, or the fixtures' rows."""
    task, folder = TASKS[name], SHARED / "data"
    whole = all(
        any((folder / name / f"{split}{end}").is_file() for end in (".parquet", ".jsonl")) for split in task.splits
    )
    few = name == "record"  # 32 passages there, and 1,000 would be set aside
    return str(folder) if whole and not few else fixtures


USUAL = ("rte", "stsb", "squad", "mbpp")
"""A task with labels, with numbers, with free text and with programs; the others take minutes: -m long."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in USUAL else pytest.mark.long) for name in TASKS]
)
def test_one_step_of_every_task_on_the_real_model(name, data_dir, tmp_path):
    task = TASKS[name]
    if task.runs_code:
        try:
            require_protection()
        except UserError as error:
            pytest.skip(str(error))
    flags = {
        "task": name,
        "method": "adept",
        "model": "smollm2-135m",
        "prompt_len": 7,
        "bottleneck": 8,
        "precision": "fp32",
    }
    small = {"steps": 1, "batch_size": 2, "eval_rows": 3, "max_source_len": 64, "max_new_tokens": 12, "device": "cpu"}
    config = resolve({
        **flags, **small, "data_dir": rows_for(name, data_dir), "results_dir": str(tmp_path),
        "allow_code_execution": task.runs_code, "compare_scoring": task.words is not None,
    })  # fmt: skip
    record = run(config)
    assert record["trainable_params"] == 7 * 576 + 8 * (2 * 576 + 1) + 576
    assert record["sizes"]["test"] == 3 and record["sizes"]["validation"] == (3 if task.split.validates else 0)
    assert set(record["test"]) <= set(task.metrics) and task.reported in record["test"]
    assert all(0 <= abs(value) <= 100 for value in record["test"].values())
    assert ("scoring_agreement" in record) == (task.words is not None)
    lines = (tmp_path / "runs" / config.run_id / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3 and all(json.loads(line)["references"] for line in lines)
