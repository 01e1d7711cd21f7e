"""A run of a table, and which of a cell's configurations validation chooses."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from adept.config.run import RunConfig
from adept.runs.record import read_record_once
from adept.tables.early_stopping import is_stopped

Key = tuple[tuple[str, Any], ...]
"""What a row, a column or a cell stands for: (option, value) pairs."""


TIMES = frozenset({"hours", "samples/s", "ms/step", "GB"})
"""The quantities of a run that must not share its steps: times, speeds, memory (adept/tables/cell.py)."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a table, finished or not."""

    config: RunConfig
    flags: Mapping[str, Any]
    """The options that the table gives it; `config` is resolved from them."""
    quantities: tuple[str, ...] = ("score",)
    shown: bool = True
    pending: bool = False
    """Cannot run yet: other runs must finish before validation can choose its start or its configuration."""
    rivals: tuple[str, ...] = ()
    """Run ids of the other configurations that are searched in its cell; empty where nothing is searched."""
    start: tuple[Key, Key] | None = None
    """(row, column) of the cell whose best run it starts from. Runs of several seeds have it in common."""

    @cached_property
    def id(self) -> str:
        return self.config.run_id

    @cached_property
    def record(self) -> dict | None:
        """The run's record; None where it is not finished. Raises UserError for a file that is no record."""
        return None if self.pending else read_record_once(self.config.results_dir, self.id)

    @property
    def timed(self) -> bool:
        """Whether the table prints how long it takes, so that no other run may share its steps."""
        return not TIMES.isdisjoint(self.quantities)

    @property
    def stopped(self) -> bool:
        """Whether early stopping ended the run. Validation then chooses among the others."""
        return not self.pending and is_stopped(self.config)

    @property
    def done(self) -> bool:
        """Whether a sweep has nothing left to do for it."""
        return self.record is not None or self.stopped

    @cached_property
    def configuration(self) -> tuple:
        """What the runs of one configuration have in common: everything but the seed.

        A run that starts from another has a start of its own for each seed, but one cell that these starts come from.
        """
        of_seed = ("seed", "init_from") if self.start else ("seed",)
        return (self.start, *((name, value) for name, value in self.config.flat().items() if name not in of_seed))


@dataclass(frozen=True)
class Selection:
    """What validation chose among the runs of a cell."""

    runs: Sequence[PlannedRun] = ()
    """The runs of the chosen configuration, one a seed; of the first one where nothing is finished."""
    configurations: Sequence[Sequence[PlannedRun]] = ()
    """The runs of every configuration, in the order of the table."""
    decided: bool = False
    """Whether the choice can no longer change: every run is finished or was stopped early."""
    searched_seeds: frozenset[int] = field(default_factory=frozenset)
    """Seeds that several configurations ran with, so that the choice favours what they were lucky with."""

    @property
    def records(self) -> list[dict]:
        """Of the chosen configuration's finished runs."""
        return [run.record for run in self.runs if run.record is not None]

    @property
    def fresh_records(self) -> list[dict]:
        """Of these, the records of seeds that were not searched."""
        fresh = [run for run in self.runs if run.config.seed not in self.searched_seeds]
        return [run.record for run in fresh if run.record is not None]

    @property
    def searched(self) -> list[list[dict]]:
        """The records of every configuration that has any."""
        found = [[run.record for run in runs if run.record is not None] for runs in self.configurations]
        return [records for records in found if records]


def select_by_validation(runs: Sequence[PlannedRun]) -> Selection:
    """The configuration with the best mean validation score over the seeds that all configurations have.

    A configuration whose records of these seeds are incomplete, such as one that was stopped early, is chosen only
    where all are. The first one is chosen among equals, and where the task has no validation score (MBPP).
    """
    by_configuration: dict[tuple, list[PlannedRun]] = {}
    for run in runs:
        if not run.pending:
            by_configuration.setdefault(run.configuration, []).append(run)
    configurations = list(by_configuration.values())
    if not configurations:
        return Selection(runs[:1])
    seeds = [{run.config.seed for run in members} for members in configurations]
    common = set.intersection(*seeds) or set.union(*seeds)
    found = [members for members in configurations if any(run.record is not None for run in members)]
    complete = [
        members for members in found if common <= {run.config.seed for run in members if run.record is not None}
    ]
    best = max(complete or found or configurations[:1], key=lambda members: mean_validation(members, common))
    counts = {seed: sum(seed in of_one for of_one in seeds) for seed in set.union(*seeds)}
    has_result = (len(runs) == 1 and runs[0].config.steps == 0) or any(run.record is not None for run in best)
    return Selection(
        best,
        configurations,
        decided=has_result and (len(runs) == 1 or all(run.done for run in runs)),
        searched_seeds=frozenset(seed for seed, count in counts.items() if count > 1),
    )


def mean_validation(runs: Sequence[PlannedRun], seeds: set[int]) -> float:
    """The mean validation score of a configuration, over these seeds if it has records of any; 0 where it has none."""
    finished = [run for run in runs if run.record is not None]
    compared = [run for run in finished if run.config.seed in seeds] or finished
    return statistics.mean(run.record["validation"].get(run.config.select_on, 0) for run in compared) if compared else 0
