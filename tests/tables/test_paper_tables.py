"""The 15 tables of the paper: their runs, and a cell for each of the paper's numbers."""

import functools
from collections import Counter

import pytest
from conftest import ROOT

from adept.config.run import OPTIONS
from adept.tables.published import PUBLISHED, published
from adept.tables.report import build_view
from adept.tables.table import Table
from adept.tables.table_file import load_table

PROFILES = (None, "smoke", "laptop", "study")
NEEDS = {1: "offset_shift", 2: "measure_offsets", 8: "fold", 11: "without_offset"}
"""Table -> the field that it cannot expand without."""


@functools.cache
def paper_table(number: int, profile: str | None) -> Table:
    if number in NEEDS and NEEDS[number] not in OPTIONS:
        pytest.skip(f"table {number} needs the field '{NEEDS[number]}', which RunConfig does not have yet")
    overrides = {"results_dir": str(ROOT / "results" / "nowhere")}
    return load_table(ROOT / "configs" / f"table{number}.yaml", overrides, profile)


@pytest.mark.parametrize("number", range(1, 16))
@pytest.mark.parametrize("profile", PROFILES)
def test_the_papers_tables_expand_and_have_a_cell_for_each_of_its_numbers(number, profile):
    view = build_view(paper_table(number, profile))
    assert view.planned and view.missing == view.planned
    cells = {(row, column) for row, columns in view.cells.items() for column in columns}
    theirs = {(line.row, line.column) for line in published(f"table{number}") if line.row}
    assert theirs, f"{PUBLISHED}/table{number}.csv names no cell"
    if profile not in ("laptop", "study"):  # another task and another model
        assert theirs - cells == set()


COUNTS = {
    3: 675 + 3 * (3 * 13 + 8 + 13),
    4: 264 + 3 * (2 * 8 + 1 + 8),
    5: 72,
    6: 60,
    7: 24,
    9: 8,
    10: 9 + 6 + 4,
    12: 4 * 8,
    13: 6 * 8,
    14: 2 * 8,
    15: 5 * (5 + 5 * 3 * 3 * 3),
}


@pytest.mark.parametrize("number", COUNTS)
def test_the_papers_grids_have_as_many_runs_as_their_notes_say(number):
    assert len(paper_table(number, None).runs()) == COUNTS[number]


@pytest.mark.parametrize("number", [3, 4])
def test_small_tasks_are_searched_and_large_ones_are_not(number):
    """Appendix E: 24 configurations of ADePT (4 shapes, 3 prompt rates, 2 offset rates), all on a budget of 76,800."""
    runs = [run for run in paper_table(number, None).runs() if run.shown and run.config.method != "spot"]
    searched = Counter((run.config.method, run.config.task) for run in runs if not run.pending)
    for task in {3: "sst2 stsb mrpc rte cola multirc boolq wic wsc cb", 4: "winogrande scitail paws"}[number].split():
        assert [searched[method, task] for method in ("adept", "dept", "pt", "lora", "full")] == [24, 24, 3, 1, 1], task
    for task in {3: "mnli qqp qnli", 4: "nq hotpotqa searchqa newsqa yelp_polarity"}[number].split():
        assert [searched[method, task] for method in ("adept", "dept", "pt", "lora", "full")] == [1] * 5, task
    seeds = Counter(run.config.seed for run in runs if run.pending)
    assert seeds == {43: len(searched), 44: len(searched)}
    for run in runs:
        config = run.config
        if config.method == "adept" and config.task == "rte":
            assert config.prompt_len * 768 + 2 * 768 * config.bottleneck + config.bottleneck + 768 <= 76_800


def test_what_is_trained_for_one_table_is_not_trained_again_for_another():
    ids = [{run.id for run in paper_table(number, None).runs() if not run.pending} for number in (12, 13, 14, 5, 6)]
    assert len(ids[0] & ids[1]) == 0  # bottlenecks 5, 10, 20, 30 against 19
    assert len(ids[1] & ids[2]) == 6  # 60 tokens and bottleneck 19
    assert ids[4] <= ids[3]
