"""What the paper claims (configs/claims.yaml), tested on our records: two cells of a table, compared on the same rows.

A claim has a line for each task of its table. A line's p is two-sided and counts for either answer: that the claim
holds, and that the opposite does. All lines with a test are corrected together by Holm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from adept.base.errors import UserError
from adept.base.paths import ROOT
from adept.base.validation import FileContent, line_error, validate
from adept.base.yaml_files import read_yaml
from adept.tables.cell import Cell
from adept.tables.published import published
from adept.tables.report import View, build_view
from adept.tables.significance import SIGNIFICANT, PairedTests, holm
from adept.tables.table_file import load_table
from adept.tasks import find_task

CLAIMS = ROOT / "configs" / "claims.yaml"

SUPPORTED, UNDECIDED, CONTRADICTED = "supported", "not told apart", "contradicted at this scale"
NOT_RUN, NOT_TESTED = "nothing was run", "without test predictions"


# The file -------------------------------------------------------------------------------------------------------------


class Records(FileContent):
    """A table whose records decide."""

    table: str
    profile: str | None = None

    @property
    def name(self) -> str:
        """As the table's files are called."""
        return "-".join(filter(None, (self.table, self.profile)))


class PaperNumbers(FileContent):
    """Two of the paper's numbers (results/published)."""

    table: str
    first: list[str] = Field(min_length=2, max_length=2)
    second: list[str] = Field(min_length=2, max_length=2)
    """[row, column]."""
    task: str


class Claim(FileContent):
    """A claim: its text, the two cells, what is expected of them, and where to look."""

    text: str
    first: dict[str, Any]
    second: dict[str, Any]
    expected: Literal["higher", "same"]
    margin: float | None = Field(None, ge=0)
    records: list[Records]
    paper: PaperNumbers

    @model_validator(mode="after")
    def _has_a_margin_where_it_needs_one(self) -> Self:
        if (self.margin is None) == (self.expected == "same"):
            raise line_error(
                "'expected: same' needs a 'margin' in points"
                if self.margin is None
                else "'margin' has no effect without 'expected: same'"
            )
        return self


class ClaimFile(FileContent):
    claims: list[Claim]


def read_claims(path: Path = CLAIMS) -> list[Claim]:
    """The claims of a file. Raises UserError for a wrong key or value."""
    return validate(ClaimFile, read_yaml(path), str(path)).claims


# What is found --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PaperDifference:
    """The paper's difference between the two, in the metric's points, on its test set of one task."""

    table: str
    task: str
    scores: tuple[float, float]
    test_rows: int

    @property
    def points(self) -> float:
        return round(self.scores[0] - self.scores[1], 6)

    @property
    def rows(self) -> int | None:
        """The difference in test rows; None for a metric that is no share of rows."""
        shares = find_task(self.task).reported in ("accuracy", "exact_match")
        return round(self.points * self.test_rows / 100) if shares else None

    @property
    def smallest_p(self) -> float | None:
        """Of a sign test of one run each: every row that tells them apart would have to favour the same one."""
        return None if self.rows is None else min(1.0, 2 * 0.5 ** abs(self.rows))


@dataclass(frozen=True)
class ClaimLine:
    """A claim on the task that it was tested on, or on those that nothing was run for."""

    claim: Claim
    tasks: tuple[str, ...]
    records: str
    """The name of the table whose records decide, or would decide."""
    papers: tuple[PaperDifference, ...]
    """Of each task."""
    verdict: str
    done: int
    planned: int
    """Runs of the two cells."""
    test: Mapping[str, Any] | None = None
    """adept/tables/significance.py, paired_test()."""
    p: float | None = None
    """Two-sided, of whichever answer is nearer; corrected by Holm."""

    @property
    def needed(self) -> Needed | None:
        """What would tell the paper's difference, or the margin, from none; None where nothing was tested."""
        points = self.claim.margin or abs(self.papers[0].points)
        return needed_to_tell(self.test, points) if self.test is not None and points else None

    @property
    def within_reach(self) -> bool:
        """Whether our rows and seeds are as many as are needed."""
        needed = self.needed
        return needed is not None and needed.rows is not None and needed.rows <= self.test["questions"]


def evaluate_claims(results_dir: Path, path: Path = CLAIMS) -> list[ClaimLine]:
    """The lines of all claims of the file, from the records of a results folder.

    Raises UserError for a file that is none, and for a claim that names no cell of its table.
    """
    evidence = Evidence(results_dir, path)
    lines = [line for claim in read_claims(path) for line in evidence.lines(claim)]
    tested = [line for line in lines if line.test is not None]
    corrected = iter(holm([nearer_answer(line.claim, line.test)[1] for line in tested]))
    return [line if line.test is None else decided(line, next(corrected)) for line in lines]


def decided(line: ClaimLine, p_value: float) -> ClaimLine:
    """The line with its corrected p and what follows from it."""
    answer, _ = nearer_answer(line.claim, line.test)
    return replace(line, p=p_value, verdict=answer if p_value < SIGNIFICANT else UNDECIDED)


def nearer_answer(claim: Claim, test: Mapping[str, Any]) -> tuple[str, float]:
    """(which of the two answers the test is nearer to, its p, twice the one-sided one since there are two).

    "same" is shown by two one-sided tests, that the difference is above -margin and below margin.
    """
    difference, one_sided = test["difference"], test["uncertainty"].one_sided
    if claim.expected == "higher":
        holds, fails = one_sided(difference), one_sided(-difference)
    else:
        holds = max(one_sided(claim.margin + difference), one_sided(claim.margin - difference))
        fails = 2 * min(one_sided(difference - claim.margin), one_sided(-difference - claim.margin))
    return (SUPPORTED if holds <= fails else CONTRADICTED), min(1.0, 2 * min(holds, fails))


class Evidence:
    """The records of a results folder, by table. path: the file of the claims, beside which the tables' files lie."""

    def __init__(self, results_dir: Path, path: Path):
        self.results_dir, self.path = results_dir, path
        self._views: dict[str, View] = {}

    @cached_property
    def _paired(self) -> PairedTests:
        return PairedTests(str(self.results_dir))

    def lines(self, claim: Claim) -> list[ClaimLine]:
        """A line for each task with finished runs, then one for all others; evaluate_claims() adds p and verdicts.

        Of the tables that have the task, the first with all runs of both cells decides.
        """
        lines, not_run = [], []
        found = [(records, self.pairs(claim, records)) for records in claim.records]
        for task in dict.fromkeys(task for _, pairs in found for task in pairs):
            options = [(records, pairs[task]) for records, pairs in found if task in pairs]
            records, pair = next((option for option in options if is_complete(option[1])), options[0])
            line = ClaimLine(
                claim,
                (task,),
                records.name,
                (paper_difference(claim, task),),
                NOT_TESTED if is_complete(pair) else NOT_RUN,
                done=sum(cell.planned - cell.missing for cell in pair),
                planned=sum(cell.planned for cell in pair),
            )
            if is_complete(pair):
                first, second = pair
                test = self._paired.compare(first.tested, second.tested, first.metric)
                lines.append(replace(line, test=test))
            else:
                not_run.append(line)
        return lines + merged(not_run)

    def pairs(self, claim: Claim, records: Records) -> dict[str, tuple[Cell, Cell]]:
        """{task: the claim's two cells}. Raises UserError where there is none, or more than one."""
        found = {}
        for task in dict.fromkeys(cell.config.task for cell in self._cells(records)):
            first, second = (self._matching(claim, records, wanted, task) for wanted in (claim.first, claim.second))
            if first.metric == second.metric:
                found[task] = first, second
        return found

    def _matching(self, claim: Claim, records: Records, options: Mapping[str, Any], task: str) -> Cell:
        cells = [
            cell
            for cell in self._cells(records)
            if cell.config.task == task and options.items() <= cell.options.items()
        ]
        if len(cells) != 1:
            raise UserError(
                f"{self.path}: '{claim.text}': {options} fits {len(cells)} cells of {records.name} on {task}, not one"
            )
        return cells[0]

    def _cells(self, records: Records) -> list[Cell]:
        if records.name not in self._views:
            table = load_table(
                self.path.parent / f"{records.table}.yaml", {"results_dir": str(self.results_dir)}, records.profile
            )
            self._views[records.name] = build_view(table)
        return [cell for cell in self._views[records.name].all_cells if cell.is_score and cell.config is not None]


def is_complete(pair: Sequence[Cell]) -> bool:
    return not any(cell.missing for cell in pair)


def merged(lines: Sequence[ClaimLine]) -> list[ClaimLine]:
    """One line for all tasks that nothing was run for, or none."""
    if not lines:
        return []
    tasks = tuple(task for line in lines for task in line.tasks)
    done, planned = (sum(getattr(line, name) for line in lines) for name in ("done", "planned"))
    papers = tuple(dict.fromkeys(paper for line in lines for paper in line.papers))
    return [replace(lines[0], tasks=tasks, papers=papers, done=done, planned=planned)]


def paper_difference(claim: Claim, task: str) -> PaperDifference:
    """The paper's two numbers: on this task where its table has them, else on the claim's."""
    values = {(entry.row, entry.column): entry.value for entry in published(claim.paper.table)}
    first, second = (tuple(key) for key in (claim.paper.first, claim.paper.second))
    own = [(row, task) for row, _ in (first, second)]
    if first[1] == second[1] == claim.paper.task and all(values.get(key) is not None for key in own):
        keys, column = own, task
    else:
        keys, column = [first, second], claim.paper.task
    if missing := [key for key in keys if values.get(key) is None]:
        raise UserError(f"'{claim.text}': results/published/{claim.paper.table}.csv has no number {missing[0]}")
    return PaperDifference(claim.paper.table, column, (values[keys[0]], values[keys[1]]), find_task(column).sizes[2])


# How much would be needed ---------------------------------------------------------------------------------------------

DETECTABLE = 2.8
"""Standard errors of a difference that a test at 5% finds in 80% of the cases: 1.96 + 0.84."""


@dataclass(frozen=True)
class Needed:
    """Test rows and seeds with which a difference is found in 80% of the cases.

    rows: with the seeds that are there; None where no number is enough. seeds: with the rows that are there, likewise.
    """

    rows: int | None
    seeds: int | None


def needed_to_tell(test: Mapping[str, Any], points: float) -> Needed:
    """What it takes to tell a difference of so many points, by the variances of a test."""
    wanted, found = (points / DETECTABLE) ** 2, test["uncertainty"]
    return Needed(
        rows=round(test["questions"] * found.rows / (wanted - found.seeds)) if wanted > found.seeds else None,
        seeds=max(1, round(test["seeds"] * found.seeds / (wanted - found.rows) + 0.5)) if wanted > found.rows else None,
    )
