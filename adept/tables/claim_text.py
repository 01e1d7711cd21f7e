"""The lines of adept/tables/claims.py in words, and as a Markdown table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from adept.tables.cell import MISSING
from adept.tables.claims import (
    CONTRADICTED,
    NOT_RUN,
    NOT_TESTED,
    SUPPORTED,
    UNDECIDED,
    ClaimLine,
    Needed,
    PaperDifference,
)
from adept.tables.markdown import escape, table_lines
from adept.tables.significance import SIGNIFICANT, p_value_text

HEADINGS = ("claim", "verdict", "our records", "ours", "95% interval", "p", "the paper", "needed")

EXPLANATIONS = (
    "A verdict needs p < {level}, two-sided, by paired bootstrap over test rows and, from two seeds each on, over "
    "seeds, after Holm's correction for {tests} comparisons; an interval is that of its comparison alone. With 1 "
    "seed each nothing is said of other seeds. Ours: the first named minus the second, in points. That two are "
    "the same is shown by two one-sided tests against the margin.",
    "The paper: its two scores and their difference in test rows. They are those of single runs, or quoted; p is "
    "the least that a sign test of one run each could give with so few rows apart. Needed: what would find the "
    "paper's difference, or the margin, in 80% of the cases, by the variances of our test: test rows with the "
    "seeds that are there, or seeds with the rows that are there.",
)


@dataclass(frozen=True)
class ClaimTexts:
    """A line's texts, in the order of HEADINGS; empty or MISSING where there is nothing to tell."""

    claim: str
    verdict: str
    records: str
    difference: str
    interval: str
    p_value: str
    paper: str
    needed: str


def claim_texts(line: ClaimLine) -> ClaimTexts:
    test = line.test
    return ClaimTexts(
        claim=line.claim.text + (f" (within {line.claim.margin:g} points)" if line.claim.margin else ""),
        verdict=line.verdict,
        records=records_text(line),
        difference=f"{test['difference'] + 0.0:+.1f}" if test else MISSING,
        interval=f"{test['low']:+.1f} to {test['high']:+.1f}" if test else MISSING,
        p_value=p_value_text(line.p) if line.p is not None else MISSING,
        paper="; ".join(paper_text(paper) for paper in line.papers),
        needed=needed_text(line.needed, test["seeds"]) if line.needed and test else MISSING,
    )


def records_text(line: ClaimLine) -> str:
    """ "movie_reviews: table11-laptop, 200 rows, 1 seed each"; of what is not there, the runs that are done."""
    where = f"{', '.join(line.tasks)}: {line.records}"
    if line.test is None:
        return f"{where}, {line.done} of {line.planned} runs"
    seeds = line.test["seeds"]
    return f"{where}, {line.test['questions']:,} rows, {seeds} seed{'s' if seeds > 1 else ''} each"


def paper_text(paper: PaperDifference) -> str:
    """ "82 against 79.1 on rte, +4 of 139 rows, p ≥ 0.12"; rows only where the score is a share of them."""
    scores = "{:g} against {:g}".format(*paper.scores)
    if paper.rows is None:
        return f"{scores} on {paper.task}, {paper.test_rows:,} rows"
    apart = f"{paper.rows:+d}" if paper.rows else "0"
    least = f", p ≥ {paper.smallest_p:.2g}" if 0.001 <= paper.smallest_p < 1 else ""
    return f"{scores} on {paper.task}, {apart} of {paper.test_rows:,} rows{least}"


def needed_text(needed: Needed, seeds: int) -> str:
    """ "1,400 rows or 5 seeds". seeds: of the test; with one nothing is known of seeds."""
    ways = [f"{float(f'{needed.rows:.2g}'):,.0f} rows"] if needed.rows is not None else []
    ways += [f"{needed.seeds} seed{'s' if needed.seeds > 1 else ''}"] if needed.seeds is not None and seeds > 1 else []
    return " or ".join(ways) or "more rows and more seeds"


def summary(lines: Sequence[ClaimLine]) -> str:
    """ "14 comparisons: 2 supported, 7 not told apart, 5 nothing was run.", and of how many more could be expected."""
    counts = Counter(line.verdict for line in lines)
    verdicts = (SUPPORTED, UNDECIDED, CONTRADICTED, NOT_TESTED, NOT_RUN)
    text = f"{len(lines)} comparisons: {', '.join(f'{counts[name]} {name}' for name in verdicts if counts[name])}."
    if found := sum(line.verdict == UNDECIDED and line.within_reach for line in lines):
        text += (
            f" In {found} of the {counts[UNDECIDED]} that are not told apart our rows and seeds are as many as are "
            "needed to find the paper's difference, or the margin."
        )
    return text


def explanations(lines: Sequence[ClaimLine]) -> list[str]:
    tests = sum(line.test is not None for line in lines)
    return [text.format(level=SIGNIFICANT, tests=tests) for text in EXPLANATIONS]


def claims_markdown(lines: Sequence[ClaimLine]) -> str:
    """The table of all lines, with how it is meant below it. A claim's text stands in its first line."""
    rows, previous = [], ""
    for texts in map(claim_texts, lines):
        cells = [getattr(texts, name) for name in ClaimTexts.__dataclass_fields__]
        cells[0] = "" if texts.claim == previous else texts.claim
        cells[1] = f"**{texts.verdict}**" if texts.verdict in (SUPPORTED, CONTRADICTED) else texts.verdict
        rows.append([escape(text) for text in cells])
        previous = texts.claim
    table = table_lines(HEADINGS, rows)
    return "\n".join([summary(lines), "", *table, "", *map(escape, explanations(lines))]) + "\n"
