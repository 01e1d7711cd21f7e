"""A cell of a table: the configuration that validation chose there, its numbers, and the paper's number."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adept.base.numbers import one_decimal, three_digits
from adept.config.run import RunConfig
from adept.tables.planned_run import TIMES, Key
from adept.tables.published import Published
from adept.tables.significance import is_small_test, seed_interval

MISSING = "–"
"""What stands for a number that is not there."""

PAPER_STEPS = 300_000
"""Of the runs whose hours Table 9 compares."""


def offset_statistic(name: str) -> Callable[[dict], float | None]:
    """Mean or variance of |offset| over the training set's tokens (Table 2); of |E| where the method has no offset."""

    def read(record: dict) -> float | None:
        if "offsets" not in record:
            return None
        return (record["offsets"].get("offset") or record["offsets"]["embeddings"])[name]

    return read


def step_seconds(record: dict) -> float | None:
    """Seconds of a training step of the run; None where it shared its steps with other runs."""
    rate = record["timing"].get("steps_per_second")
    alone = record.get("provenance", {}).get("stacked", 1) == 1
    return 1 / rate if rate and alone else None


def times_step_seconds(factor: float) -> Callable[[dict], float | None]:
    """step_seconds() in another unit."""

    def read(record: dict) -> float | None:
        seconds = step_seconds(record)
        return None if seconds is None else factor * seconds

    return read


def memory_gigabytes(record: dict) -> float | None:
    """The peak of the GPU's memory, or of the process's where there is none, in units of 10^9 bytes."""
    peak = record.get("peak_memory_bytes")
    return None if peak is None else peak / 1e9


QUANTITIES: dict[str, Callable[[dict], float | None]] = {
    "samples/s": lambda record: record["timing"].get("test_examples_per_second"),
    "hours": times_step_seconds(PAPER_STEPS / 3600),
    "ms/step": times_step_seconds(1000),
    "GB": memory_gigabytes,
    "mean": offset_statistic("mean"),
    "variance": offset_statistic("variance"),
}
"""What a cell can print besides test metrics: record -> number, or None where the record does not hold it.

Hours are those of 300,000 steps at the measured rate.
"""


def value_of(record: dict, metric: str) -> float | None:
    """The number of a record that a cell prints: a quantity or a test score."""
    return QUANTITIES[metric](record) if metric in QUANTITIES else record["test"].get(metric)


def device_of(record: dict) -> str:
    """The device that a run was made on, as its record names it; "" where it does not."""
    return record.get("provenance", {}).get("device", "")


def values_of(records: Sequence[dict], metric: str) -> list[float]:
    """The numbers of the records that have one. Times and memory of several devices give none."""
    if metric in TIMES and len({device_of(record) for record in records}) > 1:
        return []
    return [value for record in records if (value := value_of(record, metric)) is not None]


@dataclass
class Cell:
    """One row and column of a table."""

    row: str
    column: str
    metric: str
    """The test metric or quantity that is printed."""
    records: list[dict]
    """Of the chosen configuration, one a seed."""
    configurations: list[list[dict]] = field(default_factory=list)
    """The records of every configuration that was searched."""
    fresh: list[dict] = field(default_factory=list)
    """Of `records`, those of seeds that were not searched: their scores do not profit from the choice."""
    planned: int = 0
    """The number of runs."""
    missing: int = 0
    """Of these, the runs that are not done."""
    paper: Published | None = None
    values: list[float] = field(default_factory=list)
    """Of the metric, one a seed."""
    config: RunConfig | None = None
    """Of the first planned run."""
    row_key: Key = ()
    column_key: Key = ()
    """What row and column stand for."""
    parts: Sequence[Cell] = ()
    """Of a mean over tasks, the cells of these tasks."""

    @property
    def options(self) -> dict[str, Any]:
        """{option of rows and columns: the cell's value}."""
        return dict((*self.row_key, *self.column_key))

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def fresh_mean(self) -> float | None:
        """The mean over the seeds that were not searched; None where no seed was, or no other is there."""
        values = [value for record in self.fresh if (value := value_of(record, self.metric)) is not None]
        return statistics.mean(values) if values and len(values) < len(self.values) else None

    @property
    def tested(self) -> list[dict]:
        """The records that are compared with other cells': without the searched seed where two others are there."""
        return self.fresh if len(self.fresh) > 1 else self.records

    @property
    def seed_interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean over seeds; None for fewer than two."""
        return seed_interval(self.values)

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's number; None where either is not there."""
        if self.mean is None or self.paper is None or self.paper.value is None:
            return None
        return self.mean - self.paper.value

    @property
    def is_score(self) -> bool:
        """Whether it prints a test metric of single runs: no quantity and no mean over tasks."""
        return bool(self.metric) and self.metric not in QUANTITIES and not self.parts

    @property
    def small(self) -> bool:
        """Whether it prints a test score of so few rows that chance alone makes large differences."""
        return self.metric not in QUANTITIES and any(is_small_test(record) for record in self.records)

    def ours(self) -> str:
        """Our number as "mean ± std (n)", ± from two seeds on, and a dagger where the test set is small."""
        if self.mean is None:
            return MISSING
        text = three_digits if self.metric in QUANTITIES else one_decimal
        spread = f" ± {text(self.std)}" if self.std is not None else ""
        return f"{text(self.mean)}{spread} ({len(self.values)}){'†' if self.small else ''}"

    def text(self, *, named: bool = False, beside_paper: bool = False) -> str:
        """The cell in Markdown: ours(), or "paper | ours". named: the metric's name follows."""
        ours = self.ours() + (f" {self.metric}" if named and self.values else "")
        if not beside_paper:
            return ours
        return f"{number_text(self.paper.value if self.paper else None)} \\| {ours}"


def number_text(value: float | None) -> str:
    """The number without trailing zeros, or MISSING."""
    return MISSING if value is None else f"{value:g}"
