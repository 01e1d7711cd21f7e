"""The paper's claims, tested on records: which answer a test gives, whose records decide, what would be needed."""

import argparse
import dataclasses
import json
import math

import numpy as np
import pytest
from made_up_tables import write_made_up_record
from page_reader import check
from scipy import stats

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError
from adept.commands.table_arguments import named_tables
from adept.runs.layout import run_folder
from adept.tables.claim_text import claim_texts, claims_markdown, summary
from adept.tables.claims import (
    CONTRADICTED,
    NOT_RUN,
    NOT_TESTED,
    SUPPORTED,
    UNDECIDED,
    evaluate_claims,
    needed_to_tell,
    read_claims,
)
from adept.tables.page.render import html
from adept.tables.publish import publish_all
from adept.tables.report import build_view
from adept.tables.significance import Uncertainty, holm
from adept.tables.table_file import load_table

TABLE = """\
title: Made up
fields: {model: tiny-t5, task: [rte, cb]}
seeds: [1, 2]
grid: [{method: pt}, {method: adept}]
"""
PUBLISHED = "method,row,column,value,std,params,note\nPT,pt,rte,79.1,,,\nADePT,adept,rte,82,,,\n"
CLAIM = """\
  - text: ADePT scores higher than PT.
    first: {{method: {first}}}
    second: {{method: {second}}}
    expected: {expected}
    records: [{records}]
    paper: {{table: big, first: [adept, rte], second: [pt, rte], task: rte}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two tables of other steps, big and small, the paper's numbers, and no record."""
    for name, steps in (("big", 9), ("small", 5)):
        (tmp_path / f"{name}.yaml").write_text(TABLE.replace("tiny-t5", f"tiny-t5, steps: {steps}"))
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "big.csv").write_text(PUBLISHED)
    monkeypatch.setattr("adept.tables.published.PUBLISHED", tmp_path / "published")
    return tmp_path


def write_claims(folder, *, first="adept", second="pt", expected="higher", records="{table: big}, {table: small}"):
    text = CLAIM.format(first=first, second=second, expected=expected, records=records)
    (folder / "claims.yaml").write_text(f"claims:\n{text}")


def finish(folder, name: str, rights: dict[str, int], rows: int = 400, **only) -> None:
    """Records of the table's runs with these options: so many of the test rows are right, by method."""
    table = load_table(folder / f"{name}.yaml", {"results_dir": str(folder / "results")})
    for run in table.runs():
        config = run.config
        if run.pending or any(config.get(option) != value for option, value in only.items()):
            continue
        write_made_up_record(run, 100 - 100 * rights[config.method] / rows)
        lines = [
            {"id": f"test:{row}", "prediction": "1" if row < rights[config.method] else "0", "references": ["1"]}
            for row in range(rows)
        ]
        path = run_folder(config.results_dir, config.run_id) / "predictions.jsonl"
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))


def finish_all(folder, name: str, rights: dict[str, int], **only) -> None:
    for _ in range(2):  # the other seeds wait for the first
        finish(folder, name, rights, **only)


def verdicts(folder) -> dict[str, str]:
    return {", ".join(line.tasks): line.verdict for line in evaluate(folder)}


def evaluate(folder):
    return evaluate_claims(folder / "results", folder / "claims.yaml")


# Verdicts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "rights", "verdict"),
    [
        ("higher", {"adept": 320, "pt": 280}, SUPPORTED),
        ("higher", {"adept": 280, "pt": 320}, CONTRADICTED),
        ("higher", {"adept": 301, "pt": 300}, UNDECIDED),
        ("higher", {"adept": 300, "pt": 300}, UNDECIDED),
        ("same\n    margin: 2", {"adept": 300, "pt": 300}, SUPPORTED),
        ("same\n    margin: 2", {"adept": 307, "pt": 300}, UNDECIDED),
        ("same\n    margin: 2", {"adept": 360, "pt": 280}, CONTRADICTED),
    ],
)
def test_a_verdict_is_what_a_test_says(folder, expected, rights, verdict):
    write_claims(folder, expected=expected)
    finish_all(folder, "big", rights, task="rte")
    (line, other) = evaluate(folder)
    assert (line.tasks, line.verdict, line.records) == (("rte",), verdict, "big")
    assert (line.p < 0.05) == (verdict != UNDECIDED)
    assert (other.tasks, other.verdict, other.p, other.test) == (("cb",), NOT_RUN, None, None)


def test_the_p_of_a_directed_claim_is_that_of_the_paired_test_after_holm(folder):
    write_claims(folder)
    finish_all(folder, "big", {"adept": 305, "pt": 300}, task="rte")
    finish_all(folder, "big", {"adept": 320, "pt": 300}, task="cb")
    lines = evaluate(folder)
    assert [line.p for line in lines] == pytest.approx(holm([line.test["p"] for line in lines]))
    assert [line.test["difference"] for line in lines] == pytest.approx([1.25, 5])


def test_sameness_is_shown_by_two_one_sided_tests(folder):
    """The larger of the two p, twice, since the opposite could have been shown as well."""
    write_claims(folder, expected="same\n    margin: 3")
    finish_all(folder, "big", {"adept": 306, "pt": 300}, task="rte")
    line, _ = evaluate(folder)
    found = line.test["uncertainty"]
    assert line.p == pytest.approx(2 * stats.t.sf((3 - 1.5) / found.error, found.freedom))


def test_without_records_nothing_is_said(folder):
    write_claims(folder)
    (line,) = evaluate(folder)
    assert (line.tasks, line.verdict, line.done, line.planned) == (("rte", "cb"), NOT_RUN, 0, 8)
    texts = claim_texts(line)
    assert texts.records == "rte, cb: big, 0 of 8 runs" and texts.p_value == texts.difference == "–"


def test_without_predictions_nothing_is_said(folder):
    write_claims(folder)
    finish_all(folder, "big", {"adept": 320, "pt": 280})
    for path in (folder / "results" / "runs").glob("*/predictions.jsonl"):
        path.unlink()
    assert set(verdicts(folder).values()) == {NOT_TESTED}


# Whose records decide -------------------------------------------------------------------------------------------------


def test_the_first_table_whose_runs_are_all_there_decides(folder):
    write_claims(folder)
    finish_all(folder, "small", {"adept": 280, "pt": 320})
    finish_all(folder, "big", {"adept": 320, "pt": 280}, task="rte", seed=1)
    assert [(line.records, line.verdict) for line in evaluate(folder)] == [("small", CONTRADICTED)] * 2
    finish_all(folder, "big", {"adept": 320, "pt": 280}, task="rte")
    assert [(line.records, line.verdict) for line in evaluate(folder)] == [("big", SUPPORTED), ("small", CONTRADICTED)]


# What is needed -------------------------------------------------------------------------------------------------------


def test_needed_rows_find_the_difference_in_80_percent_of_the_cases():
    """Rows alone differ: with n of them the error is sqrt(400 / n) of that with 400."""
    found = Uncertainty(rows=4.0, seeds=0.0, freedom=math.inf, resamples=1000)
    needed = needed_to_tell({"uncertainty": found, "questions": 400, "seeds": 1}, 2.9)
    error = math.sqrt(4.0 * 400 / needed.rows)
    power = stats.norm.sf(1.96 - 2.9 / error)
    assert power == pytest.approx(0.8, abs=0.005) and needed.seeds is None


def test_more_rows_do_not_help_where_seeds_differ_by_more():
    found = Uncertainty(rows=0.1, seeds=4.0, freedom=4, resamples=1000)
    needed = needed_to_tell({"uncertainty": found, "questions": 400, "seeds": 3}, 2.9)
    assert needed.rows is None
    assert math.sqrt(0.1 + 4.0 * 3 / needed.seeds) <= 2.9 / 2.8 < math.sqrt(0.1 + 4.0 * 3 / (needed.seeds - 1))


def test_the_papers_four_rows_are_no_evidence_by_themselves(folder):
    """82.0 against 79.1 on RTE: even if only these four of 139 rows differ, a sign test gives p = 0.125."""
    write_claims(folder)
    (line,) = evaluate(folder)
    (paper,) = line.papers
    assert (paper.points, paper.rows, paper.test_rows) == (2.9, 4, 139)
    assert paper.smallest_p == pytest.approx(stats.binomtest(4, 4).pvalue) == 0.125
    assert claim_texts(line).paper == "82 against 79.1 on rte, +4 of 139 rows, p ≥ 0.12"


# The file -------------------------------------------------------------------------------------------------------------


def test_the_committed_claims_name_cells_of_their_tables_and_numbers_of_the_paper(tmp_path):
    claims, lines = read_claims(), evaluate_claims(tmp_path)
    assert {line.claim.text for line in lines} == {claim.text for claim in claims}
    assert {line.verdict for line in lines} == {NOT_RUN}
    for line in lines:
        for paper in line.papers:
            direction = np.sign(paper.points) if line.claim.expected == "higher" and paper.rows != 0 else 1
            assert direction == 1 or paper.task in ("sst2", "cola")  # the paper's own exceptions


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first": "lora"}, r"\{'method': 'lora'\} fits 0 cells of big on rte, not one"),
        ({"expected": "lower"}, "'expected' must be one of higher, same, not 'lower'"),
        ({"expected": "same"}, "needs a 'margin' in points"),
        ({"expected": "higher\n    margin: 2"}, "'margin' has no effect without 'expected: same'"),
        ({"records": "{table: bigger}"}, "bigger.yaml"),
    ],
)
def test_a_mistake_in_the_claims_is_one_line(folder, change, said):
    write_claims(folder, **change)
    with pytest.raises(UserError, match=said) as caught:
        evaluate(folder)
    assert "\n" not in str(caught.value)


# Where they stand -----------------------------------------------------------------------------------------------------


def test_the_document_has_a_row_for_each_line(folder):
    write_claims(folder)
    finish_all(folder, "big", {"adept": 320, "pt": 280}, task="rte")
    text = claims_markdown(evaluate(folder))
    assert text.startswith("2 comparisons: 1 supported, 1 nothing was run.\n")
    assert "| ADePT scores higher than PT. | **supported** | rte: big, 400 rows, 2 seeds each | +10.0 | " in text
    assert "|  | nothing was run | cb: big, 0 of 4 runs | – | – | – | 82 against 79.1 on rte, +4 of 139 rows" in text


def test_the_summary_tells_what_could_have_been_found(folder):
    write_claims(folder)
    finish_all(folder, "big", {"adept": 301, "pt": 300}, task="rte")
    line, _ = evaluate(folder)
    said = "In 1 of the 1 that are not told apart our rows and seeds are as many as are needed"
    assert line.needed.rows < 400 and said in summary([line])
    noisy = dataclasses.replace(line, test={**line.test, "uncertainty": Uncertainty(4.0, 0.0, math.inf, 1000)})
    assert noisy.needed.rows > 400 and summary([noisy]) == "1 comparisons: 1 not told apart."


def test_the_page_begins_with_the_claims(folder):
    write_claims(folder)
    finish_all(folder, "big", {"adept": 320, "pt": 280}, task="rte")
    view = build_view(load_table(folder / "big.yaml", {"results_dir": str(folder / "results")}))
    read = check(html([view], claims=evaluate(folder)), folder / "results")
    assert [title for _, title in read.all("h2")] == ["Tables", "What holds, what does not", "Made up", "All runs"]
    assert [(own["class"], text) for own, text in read.all("td", "verdict")] == [
        ("verdict holds", SUPPORTED),
        ("verdict open", NOT_RUN),
    ]
    addresses = [own["href"] for own, text in read.all("a") if text.startswith(("rte: big", "cb: big"))]
    assert addresses == ["#big", "#big"]


def test_of_several_profiles_the_first_whose_runs_are_all_there_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("adept.tables.publish.OTHER_TABLES", ())
    tables = named_tables(argparse.Namespace(all=True, profile="study,laptop"), {"results_dir": str(tmp_path)})
    assert [(table.name, table.profile) for table in tables[:4]] == [
        ("table1", "study"), ("table1", "laptop"), ("table2", "study"), ("table2", "laptop"),
    ]  # fmt: skip
    alternatives = [table for table in tables if table.name == "table14"]
    publish_all(alternatives)
    assert "| adept 60 | – |" in (document := (tmp_path / "README.md").read_text()) and "Profile" not in document
    assert [line for line in document.splitlines() if line.startswith("<!-- table")] == [
        f"<!-- table: {name} -->" for name in ("claims", "status", "all")
    ]
    for run in alternatives[1].runs():
        write_made_up_record(run, 40)
    publish_all(alternatives)
    assert "Profile laptop." in (tmp_path / "README.md").read_text()
