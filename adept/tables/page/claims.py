"""The page's first section: what the paper claims, and what our records say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adept.tables.claim_text import HEADINGS, ClaimTexts, claim_texts, explanations, summary
from adept.tables.claims import CONTRADICTED, SUPPORTED, ClaimLine
from adept.tables.page.formatting import typographic_minus

VERDICT_CLASSES = {SUPPORTED: "holds", CONTRADICTED: "fails"}


@dataclass(frozen=True)
class ClaimRow:
    """A line. texts: in the order of HEADINGS after the claim's own, which is empty where the line before has it.

    address: of the table that the line is about, where the page shows it. verdict: the class that marks the verdict.
    """

    claim: str
    texts: Sequence[str]
    address: str
    verdict: str


@dataclass(frozen=True)
class ClaimSection:
    summary: str
    headings: Sequence[str]
    rows: Sequence[ClaimRow]
    explanations: Sequence[str]


def claim_section(lines: Sequence[ClaimLine], sections: Mapping[str, str]) -> ClaimSection | None:
    """The section, or None without claims. sections: {name of a table's files: the id of its section}."""
    if not lines:
        return None
    rows, previous = [], ""
    for line in lines:
        texts = claim_texts(line)
        claim, *others = (getattr(texts, name) for name in ClaimTexts.__dataclass_fields__)
        section = sections.get(line.records, "")
        rows.append(
            ClaimRow(
                "" if claim == previous else claim,
                [typographic_minus(text) if text.startswith(("+", "-")) else text for text in others],
                f"#{section}" if section else "",
                VERDICT_CLASSES.get(line.verdict, "open"),
            )
        )
        previous = claim
    return ClaimSection(summary(lines), HEADINGS, rows, explanations(lines))
