"""WSC's marks and ReCoRD's rows."""

import pytest
from rendering import permutation_by_seed_42

from adept.data.splits import split_rows
from adept.tasks import TASKS
from adept.tasks.superglue import mark_span


def test_record_is_carved_in_queries_and_then_a_row_is_made_for_each_answer():
    """The paper's sizes fit queries whose 1,000 drawn ones have 370 answers more than one each, and so on."""
    order = permutation_by_seed_42(100_730)
    double = {*order[:370], *order[1000 : 1000 + 137_484 - 99_730]}
    rows = {
        "train": [{"answers": ["a", "b"] if i in double else ["a"]} for i in range(100_730)],
        "validation": [{"answers": ["a", "b"] if i < 5_176 else ["a"]} for i in range(10_000)],
    }
    parts = split_rows(TASKS["record"], rows, 42)
    assert tuple(sum(len(list(TASKS["record"].expand(row))) for row in part) for part in parts) == TASKS["record"].sizes
    assert TASKS["record"].sizes == (137_484, 1_370, 15_176)


@pytest.mark.parametrize(
    ("plain", "span", "index", "marked"),
    [
        ("I paid C++ (v2) today.", "C++ (v2)", 2, "I paid * C++ (v2) * today."),
        ("axb ends here", "a.b", 0, "axb ends here"),
        ("the cat saw the cat", "the cat", 3, "the cat saw * the cat *"),
        ("the cat", "the", 0, "* the * cat"),
        ("the cat", "the", 1, "the cat"),
        ("the cat", "cat", 7, "the cat"),
        ("a \\1 b", "\\1", 1, "a * \\1 * b"),
        ("it's Ann's", "Ann", 1, "it's * Ann *'s"),
    ],
)
def test_a_span_is_marked_at_its_word_and_nowhere_else(plain, span, index, marked):
    assert mark_span(plain, span, index, "*") == marked
