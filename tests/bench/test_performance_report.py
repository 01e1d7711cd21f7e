"""The tables of the bench and the projection to the paper's grids."""

import json
import re

import pytest
from conftest import ROOT

from adept.bench.profiles import GRIDS, PROFILES
from adept.bench.report import performance_markdown, project_grids


def test_grids_of_the_tables():
    """243 runs and 8.1 million steps for Table 3's ADePT (13 tasks, one seed)."""
    assert (GRIDS["Table 3"].runs, GRIDS["Table 3"].steps) == (243, 8_100_000)
    entries = [
        {"model": "t5-base", "profile": name, "style": "ours", "first": "released", "step": {"seconds": 0.1},
         "cycle": {"seconds": 110.0}}
        for name, profile in PROFILES.items() if profile.stands_for
    ]  # fmt: skip
    hours = {p["table"]: p["hours"] for p in project_grids(entries)}
    assert hours["Table 3"] == pytest.approx(8.1e6 * 0.11 / 3600)
    assert "Tables 5, 6" not in hours  # T5-3B was not measured
    assert project_grids([e for e in entries if e["profile"] != "mnli"]) == []


def test_the_committed_page_is_made_from_its_measurements():
    whole = json.loads((ROOT / "results" / "performance.json").read_text())
    page = (ROOT / "results" / "performance.md").read_text()
    for kind, result in whole.items():
        block = re.search(rf"<!-- table: {kind} -->\n(.*?)<!-- end -->", page, re.DOTALL).group(1)
        assert block == performance_markdown(result), "run: python -m adept bench --out results/performance"
