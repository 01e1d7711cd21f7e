"""The page of all tables: whole and well-formed, each number has its record, no record is HTML, usable by keyboard."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from browser import Browser, find
from conftest import ROOT
from jinja2 import UndefinedError
from markupsafe import Markup
from page_reader import Reader, check

from adept.base.atomic_files import write_atomically
from adept.config.run import RunConfig
from adept.runs.layout import run_folder
from adept.runs.record import SCHEMA, write_record
from adept.tables import plots
from adept.tables.page import figures, formatting, render, runs
from adept.tables.page.render import html, write_page
from adept.tables.report import build_view
from adept.tables.table_file import load_table

TABLE = """\
title: Two methods on two tasks
note: Made up.
fields: {model: tiny, task: [rte, cb], prompt_lr: [0.1, 0.3]}
seeds: [1, 2]
grid:
  - {method: pt, prompt_len: 9}
  - {method: adept, prompt_len: 5, bottleneck: 3}
means: {both: [rte, cb]}
"""
PUBLISHED = """\
method,row,column,value,std,params,note
PT,pt,rte,50,,76.8K,
ADePT,adept,rte,52.4,0.3,76.1K,RTE of the paper
ADePT,adept,cb,60,,76.1K,
LoRA,lora,rte,49.5,,1.2M,quoted from elsewhere
"""
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' onclick='alert(3)' & \u2028\u2029 ]]> <!--"


def record_run(config, *, test=None, rows=400, steps=(10, 20), **more):
    """Rate 0.1 is better in validation; its test score is 51.0 (pt) or 52.0 (adept), and one more with seed 2."""
    score = (
        (51 if config.prompt_lr == 0.1 else 91) + (config.method == "adept") + config.seed - 1 if test is None else test
    )
    best = {config.select_on: 80 if config.prompt_lr == 0.1 else 70, "accuracy": 80 if config.prompt_lr == 0.1 else 70}
    record = {
        "schema": SCHEMA, "run_id": config.run_id, "config": config.flat(),
        "best_step": steps[-1], "notes": [],
        "trainable_params": {"pt": 6912, "adept": 16923}.get(config.method, 0), "validation": best,
        "test": {"accuracy": score, "f1_macro": 5.0}, "sizes": {"train": 100, "validation": 50, "test": rows},
        "history": [
            {"step": n, "train_loss": 1 / n, "validation": {name: value - 1 / n for name, value in best.items()}}
            for n in steps
        ],
        "provenance": {
            "git": "0123456789abcdef", "dirty": False, "python": "3.11.7", "device": "cpu",
            "packages": {"torch": "2.13.0"},
        },
        **more,
    }  # fmt: skip
    return write_record(config.results_dir, {name: value for name, value in record.items() if value is not None})


def write_predictions(config, rows):
    """rows: (prediction, reference)."""
    path = run_folder(config.results_dir, config.run_id) / "predictions.jsonl"
    lines = (
        json.dumps({"id": f"test:{number}", "prediction": said, "references": [true]})
        for number, (said, true) in enumerate(rows)
    )
    write_atomically(path, "\n".join(lines) + "\n")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """load(**overrides) -> the table TABLE, its runs in tmp_path/results, the paper's numbers in tmp_path/published."""
    (tmp_path / "two.yaml").write_text(TABLE)
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "two.csv").write_text(PUBLISHED)
    monkeypatch.setattr("adept.tables.published.PUBLISHED", tmp_path / "published")
    return lambda **overrides: load_table(
        tmp_path / "two.yaml", {"results_dir": str(tmp_path / "results"), **overrides}
    )


def finish(table, **options):
    """Writes every record of the table, as far as finished ones decide what comes next."""
    while left := [run.config for run in table.runs() if not run.pending and run.record is None]:
        for config in left:
            record_run(config, **options)
    return build_view(table)


@pytest.fixture(scope="module")
def real() -> tuple[str, list]:
    """The page of the tables whose records are in results/runs, and their views."""
    tables = ["quickstart", "first_results", "scoring", "every_task"]
    views = [
        build_view(load_table(ROOT / "configs" / f"{name}.yaml", {"results_dir": str(ROOT / "results")}))
        for name in tables
    ]
    return html(views), views


# The whole ------------------------------------------------------------------------------------------------------------


def test_the_real_tables_make_a_whole_page(real):
    text, views = real
    read = check(text, ROOT / "results")
    assert [title for _, title in read.all("h2")] == ["Tables", *(view.table.title for view in views), "All runs"]
    assert len(read.data["runs"]) == len(
        {record["run_id"] for view in views for cell in view.all_cells for record in cell.records}
    )
    assert len(text) < 1_000_000
    assert text == html(views)


def test_every_number_of_ours_opens_its_runs(real):
    text, views = real
    read = check(text, ROOT / "results")
    shown = [own for own, _ in read.all("a", "ours")]
    cells = [cell for view in views for cell in view.all_cells]
    assert len(shown) == len(cells) == sum(bool(cell.values) for cell in cells)
    for own, cell, text in zip(shown, cells, [text for _, text in read.all("a", "ours")], strict=True):
        ids = own["data-runs"].split("\n")
        assert ids == [record["run_id"] for record in cell.records]
        assert text == f"{cell.mean:.1f} ({len(cell.values)})".replace("-", "−")
        for run_id in ids:
            run = read.data["runs"][run_id]
            assert json.loads((ROOT / "results" / run["file"]).read_text())["test"] == pytest.approx(
                run["test"], rel=1e-5
            )


def test_tables_without_runs_show_the_papers_numbers(tmp_path):
    views = [
        build_view(load_table(ROOT / "configs" / f"table{n}.yaml", {"results_dir": str(tmp_path)}))
        for n in (2, 3, 7, 12, 15)
    ]
    read = check(html(views), tmp_path)
    assert not read.all("a", "ours")
    assert read.data["runs"] == {}
    assert "No runs yet." in html(views)
    cells = [text for _, text in read.all("td")]
    assert re.fullmatch(r"–paper 82\.00 of \d+ runs", next(text for text in cells if "82.0" in text))
    assert len([text for text in cells if "paper" in text]) == sum(
        bool(cell.paper) for view in views for cell in view.all_cells
    )


def test_no_table_is_a_page_too(tmp_path):
    write_page([], tmp_path / "index.html")
    check((tmp_path / "index.html").read_text(encoding="utf-8"), tmp_path)


def test_the_same_table_twice_keeps_ids_apart(load, tmp_path):
    view = finish(load())
    read = check(html([view, view]), tmp_path / "results")
    assert {"two", "two-2"} <= {own.get("id") for own, _ in read.all("section")}


def test_a_page_elsewhere_still_finds_the_records(load, tmp_path):
    view = finish(load())
    place = tmp_path / "some where" / "page.html"
    write_page([view], place)
    check(place.read_text(encoding="utf-8"), place.parent)


# Cells ----------------------------------------------------------------------------------------------------------------


def test_a_cell_is_ours_the_paper_and_the_difference(load, tmp_path):
    read = check(html([finish(load())]), tmp_path / "results")
    own, text = read.cell("pt", "rte")
    assert text == "51.5 ± 0.7 (2)paper 50.0 ▲ +1.5" and own["class"] == "up1"
    own, text = read.cell("adept", "rte")
    assert text == "52.5 ± 0.7 (2)paper 52.4 ± 0.3 ▲ +0.1" and own["class"] == "even"
    own, text = read.cell("adept", "cb")
    assert text == "52.5 ± 0.7 (2)paper 60.0 ▼ −7.5" and own["class"] == "down3"
    own, text = read.cell("pt", "cb")
    assert text == "51.5 ± 0.7 (2)" and "class" not in own


def test_a_mean_opens_the_runs_of_its_tasks(load, tmp_path):
    view = finish(load())
    read = check(html([view]), tmp_path / "results")
    assert read.cell("adept", "both")[1] == "52.5 ± 0.7 (2)"
    links = [own["data-runs"].split("\n") for own, _ in read.all("a", "ours")]
    assert sorted(links[5]) == sorted(
        record["run_id"] for task in ("rte", "cb") for record in view.cells["adept"][task].records
    )


def test_missing_runs_are_counted_in_their_cells_and_above(load, tmp_path):
    table = load()
    for run in table.runs():
        if not run.pending and run.config.task == "rte" and run.config.method == "pt" and run.config.prompt_lr == 0.1:
            record_run(run.config)
    view = build_view(table)
    read = check(html([view]), tmp_path / "results")
    cell = view.cells["pt"]["rte"]
    assert read.cell("pt", "rte")[1] == f"51.0 (1)paper 50.0 ▲ +1.0{cell.planned - cell.missing} of {cell.planned} runs"
    empty = view.cells["adept"]["cb"]
    assert read.cell("adept", "cb")[1] == f"–paper 60.0{empty.planned - empty.missing} of {empty.planned} runs"
    ((_, state),) = read.all("p", "state")
    assert f"{view.planned - view.missing} of {view.planned} runs are there" in state
    assert f"{view.missing} of {view.planned} planned runs are missing" in read.all("p", "lead")[0][1]


def test_rows_that_only_the_paper_has_stand_apart(load, tmp_path):
    text = html([finish(load())])
    read = check(text, tmp_path / "results")
    assert read.cell("LoRA", "rte")[1] == "49.5" and read.cell("LoRA", "cb")[1] == "–"
    ((_, quoted),) = read.all("tbody", "quoted")
    assert quoted.lstrip().startswith("Printed in the paper, not run here") and "1.2M" in quoted
    assert "LoRA: quoted from elsewhere" in text


def test_remarks_stand_folded_under_the_headings_of_rows_and_columns(load):
    table = dataclasses.replace(load(), remarks={"pt": "of ours <b>", "LoRA": "of the paper's", "cb": "of a column"})
    read = Reader(html([finish(table)]))
    assert [text for _, text in read.all("details", "remark")] == [
        f"remark{text}" for text in ("of a column", "of ours <b>", "of the paper's")
    ]


def test_changes_are_told_beside_the_table(load, tmp_path):
    read = check(html([build_view(load(steps="5", task="rte"))]), tmp_path / "results")
    ((_, told),) = read.all("p", "changed")
    assert "Changed for all runs: steps = 5 task = rte. Differences to the paper are not coloured." in told
    assert not check(html([build_view(load())]), tmp_path / "results").all("p", "changed")


def test_where_all_runs_were_changed_differences_have_no_colour(load, tmp_path):
    own, text = check(html([finish(load(steps="5"))]), tmp_path / "results").cell("adept", "cb")
    assert text == "52.5 ± 0.7 (2)paper 60.0 ▼ −7.5" and "class" not in own


def test_small_test_sets_are_marked_and_explained(load, tmp_path):
    text = html([finish(load(), rows=100)])
    assert "†" in check(text, tmp_path / "results").cell("pt", "rte")[1]
    assert "† fewer than 300 test rows." in text
    shutil.rmtree(tmp_path / "results")
    assert "†" not in check(html([finish(load(), rows=300)]), tmp_path / "results").cell("pt", "rte")[1]


def test_the_paired_bootstrap_stands_in_the_cell(load, tmp_path):
    table = load()
    view = finish(table)
    for cell in view.all_cells:
        for record in cell.records:
            right = 40 if record["config"]["method"] == "adept" else 20
            write_predictions(
                RunConfig.from_record(record["config"]),
                [("1" if n < right else "0", "1") for n in range(60)],
            )
    read = check(html([view]), tmp_path / "results")
    assert view.tests[("pt", "rte")]["p"] < 0.01
    text = read.cell("pt", "rte")[1]
    assert re.search(r"Δ −33\.3, p [<=] 0\.00\d", text), text
    assert "Δ" not in read.cell("adept", "rte")[1]
    rows = [text for _, text in read.all("tr") if text.startswith("ptrte−33.3")]
    assert len(rows) == 1 and " to " in rows[0]


# What is embedded -----------------------------------------------------------------------------------------------------


def test_the_record_behind_a_number_is_in_the_page(load, tmp_path):
    table = load()
    view = finish(table, timing={"train_seconds": 12.5}, notes=["small"])
    config = next(run.config for run in table.runs() if run.id == view.cells["adept"]["rte"].records[0]["run_id"])
    write_predictions(config, [("entailment", "not_entailment")] * 60)
    read = check(html([view]), tmp_path / "results")
    run = read.data["runs"][config.run_id]
    assert run["config"]["bottleneck"] == 3 and run["config"]["prompt_lr"] == 0.1 and "results_dir" not in run["config"]
    assert [entry["step"] for entry in run["history"]] == [10, 20] and run["history"][1]["validation"][
        "accuracy"
    ] == 79.95
    assert run["test"] == {"accuracy": 52, "f1_macro": 5}
    assert run["timing"] == {"train_seconds": 12.5} and run["notes"] == ["small"]
    assert run["provenance"]["git"] == "0123456789abcdef" and run["sizes"]["test"] == 400
    assert run["predictions"] == [
        [f"test:{n}", "entailment", ["not_entailment"]] for n in range(runs.PREDICTIONS_PER_RUN)
    ]
    assert run["predictions_file"] == f"runs/{config.run_id}/predictions.jsonl"
    assert read.data["defaults"]["weight_decay"] == 0.01 and "task" not in read.data["defaults"]
    assert "0123456789" in read.all("dl", "origins")[0][1]


def test_what_is_embedded_is_bounded(load, tmp_path):
    table = load(task="rte")
    view = finish(table, steps=range(1, 1001))
    for record in (record for cell in view.all_cells for record in cell.records):
        config = next(run.config for run in table.runs() if run.id == record["run_id"])
        write_predictions(config, [("word " * 500, "answer " * 500)] * 60)
    text = html([view])
    for run in check(text, tmp_path / "results").data["runs"].values():
        assert len(run["history"]) <= runs.HISTORY_ENTRIES + 1 and run["evaluations"] == 1000
        assert [run["history"][0]["step"], run["history"][-1]["step"]] == [1, 1000]
        assert len(run["predictions"]) == runs.PREDICTIONS_PER_RUN
        assert all(len(words) <= formatting.MAX_TEXT + 1 for row in run["predictions"] for words in (row[1], *row[2]))
    assert len(text) < 400_000


def test_many_runs_share_the_predictions(monkeypatch, load, tmp_path):
    table = load()
    view = finish(table)
    for run in table.runs():
        write_predictions(run.config, [("a", "b")] * 60)
    monkeypatch.setattr(runs, "PREDICTIONS_PER_PAGE", 8 * 7)
    assert {len(run["predictions"]) for run in check(html([view]), tmp_path / "results").data["runs"].values()} == {7}


def test_records_with_less_in_them_are_shown(load, tmp_path):
    view = finish(load(), sizes=None, provenance=None, history=[], validation={})
    read = check(html([view]), tmp_path / "results")
    assert read.cell("pt", "rte")[1].startswith("51.5 ± 0.7 (2)") or read.cell("pt", "rte")[1].startswith("91.5")
    assert not read.all("dl", "origins")


def test_downsampling_keeps_the_ends_and_what_matters():
    kept = formatting.downsample(range(1000), 50, [777])
    assert kept[0] == 0 and kept[-1] == 999 and 777 in kept and len(kept) <= 50
    assert formatting.downsample([1, 2, 3], 3) == [1, 2, 3]


# Safety ---------------------------------------------------------------------------------------------------------------


def test_nothing_of_a_record_or_table_becomes_html(load, tmp_path):
    table = load()
    evil_source = {"git": EVIL, "packages": {EVIL: EVIL}, "device": EVIL, "python": EVIL}
    evil_groups = {EVIL: {"lr": 0.1, "params": 3}}
    finish(table, notes=[EVIL], provenance=evil_source, timing={EVIL: 1.0}, param_groups=evil_groups)
    for path in sorted((tmp_path / "results" / "runs").glob("*.json")):
        record = json.loads(path.read_text())
        record["config"]["model"] = EVIL
        path.write_text(json.dumps(record))
    (tmp_path / "published" / "two.csv").write_text(PUBLISHED + '"<b>X</b>",,rte,1,,1<i>,"<u>note</u>"\n')
    table = dataclasses.replace(
        table, title=EVIL, note=EVIL, labels={"rte": EVIL, "adept": "<s>adept</s>"}, profile_models={EVIL: EVIL}
    )
    view = build_view(table)
    for cell in view.all_cells:
        for record in cell.records:
            config = next(run.config for run in table.runs() if run.id == record["run_id"])
            write_predictions(config, [(EVIL, EVIL)] * 30)
    text = html([view])
    read = check(text, tmp_path / "results")
    assert not [name for name, _ in read.elements if name in ("b", "u", "s", "img")]
    assert EVIL in read.all("p", "changed")[0][1]
    assert EVIL in [title for _, title in read.all("h2")]
    run = next(iter(read.data["runs"].values()))
    assert run["predictions"][0][1] == EVIL and run["notes"] == [EVIL] and run["config"]["model"] == EVIL
    embedded = text[text.index('id="data"') : text.index("</script>", text.index('id="data"'))]
    assert not set("<>&\u2028\u2029") & set(embedded.split(">", 1)[1])


def test_the_policy_allows_this_style_and_script_alone(real):
    read = Reader(real[0])
    (policy,) = [own["content"] for own, _ in read.all("meta") if own.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and set(rules) == {
        "default-src",
        "style-src",
        "script-src",
        "base-uri",
        "form-action",
    }
    for kind, rule in (("style", "style-src"), ("script", "script-src")):
        (text,) = [text for own, text in read.all(kind) if own == {}]
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_a_script_sets_text_and_never_html():
    script = (render.TEMPLATES / "page.js").read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|fetch\(|XMLHttp|import\(", script
    )


def test_numbers_that_json_has_not_and_half_letters_do_not_break_the_page(load, tmp_path):
    view = finish(load())
    for cell in view.all_cells:
        for record in cell.records:
            record["timing"] = {"train_seconds": float("nan"), "eval_seconds": float("inf")}
            record["notes"] = ["half a letter: \ud800"]
    write_page([view], tmp_path / "results" / "index.html")
    read = check((tmp_path / "results" / "index.html").read_text(encoding="utf-8"), tmp_path / "results")
    assert next(iter(read.data["runs"].values()))["timing"] == {"train_seconds": None, "eval_seconds": None}


def test_templates_escape_text_and_raise_for_unknown_names():
    environment = render.environment()
    template = environment.from_string('<a href="{{ address }}">{{ text }}</a>{{ drawing }}')
    assert template.render(address='"x"', text="<b> & 'c'", drawing=Markup("<i>x</i>")) == (
        '<a href="&#34;x&#34;">&lt;b&gt; &amp; &#39;c&#39;</a><i>x</i>'
    )
    with pytest.raises(UndefinedError):
        template.render(address="", text="")


# Plots ----------------------------------------------------------------------------------------------------------------


def drawings(read: Reader, title: str) -> list[str]:
    """Labels of the drawings under a summary."""
    number = next(n for n, (name, _) in enumerate(read.elements) if name == "summary" and read.inside[n] == title)
    found = []
    for name, own in read.elements[number + 1 :]:
        if name in ("details", "section"):
            break
        if name == "svg" and "aria-label" in own:
            found.append(own["aria-label"])
    return found


def test_learning_curves_have_a_panel_for_each_task_and_a_line_for_each_seed(load, tmp_path):
    read = check(html([finish(load())]), tmp_path / "results")
    drawn = drawings(read, "Learning curves")
    assert [label.split(":")[0] for label in drawn] == [
        "Validation score over steps, rte",
        "Validation score over steps, cb",
    ]
    assert [label.split(":")[0] for label in drawings(read, "Training loss")] == [
        "Training loss over steps, rte",
        "Training loss over steps, cb",
    ]
    lines = [text for own, text in read.all("g", "line") if "at step" in text]
    assert len(lines) == 16  # scores and losses of 2 tasks, 2 methods, 2 seeds
    named = {f"{name}, seed {seed}" for name in ("pt", "adept") for seed in (1, 2)}
    assert set(lines) == {f"{name}: {value} at step 20" for name in named for value in ("80.0", "0.05")}


def test_the_seeds_of_a_configuration_differ_in_their_dashes_and_stand_in_the_legend(load, tmp_path):
    text = html([finish(load())])
    read = check(text, tmp_path / "results")
    dashes = {}
    for own, title in read.all("g", "line"):
        if "at step" in title:
            dashes.setdefault(title.split(":")[0], set()).add(own["class"].removeprefix("line "))
    assert dashes == {
        "pt, seed 1": {"s3"}, "pt, seed 2": {"s3 seed1"}, "adept, seed 1": {"s5"}, "adept, seed 2": {"s5 seed1"},
    }  # fmt: skip
    legend = read.inside[next(n for n, (name, own) in enumerate(read.elements) if own.get("class") == "legend")]
    assert legend.split() == ["pt", "adept", "seed", "1", "seed", "2"]
    styles = re.findall(r"\.line\.seed\d { stroke-dasharray: ([\d. ]+); }", text)
    assert len(set(styles)) == len(plots.LINE_STYLES) - 1


def test_series_that_are_no_methods_differ_from_what_only_the_paper_has():
    table = load_table(ROOT / "configs" / "precision.yaml", {"results_dir": str(ROOT / "results")})
    assert figures.SeriesStyles(build_view(table)).numbers == {"fp32": 0, "bf16": 1}


def test_where_all_runs_have_one_seed_the_legend_names_none(load, tmp_path):
    read = check(html([finish(load(seed=1))]), tmp_path / "results")
    assert "seed" not in "".join(text for _, text in read.all("ul", "legend"))


def test_a_table_of_which_nothing_has_run_is_folded_with_its_count(load, tmp_path):
    table = load()
    empty = check(html([build_view(table)]), tmp_path / "results")
    ((_, line),) = [found for found in empty.all("summary") if "Two methods" in found[1]]
    assert " ".join(line.split()) == "Two methods on two tasks 0 of 12 runs are there; 4 wait for validation to choose."
    record_run(next(run.config for run in table.runs() if not run.pending))
    started = check(html([build_view(table)]), tmp_path / "results")
    assert empty.all("details", "empty") and not started.all("details", "empty")


def test_every_searched_configuration_is_drawn_and_listed(load, tmp_path):
    read = check(html([finish(load())]), tmp_path / "results")
    assert len(drawings(read, "Sensitivity to prompt_lr")) == 2
    told = [text for _, text in read.all("title") if "chosen" in text or " at 0.3" in text]
    assert (
        "adept, test 92.0 at 0.3" in told
        and "adept, validation 80.0 at 0.1, chosen" in told
        and "adept, test 52.0 at 0.1, chosen" in told
    )
    assert "All 8 configurations that were searched" in [text for _, text in read.all("summary")]
    assert sum("✓ chosen" in text for _, text in read.all("tr", "chosen")) == 4


def test_score_over_parameters_has_ours_and_the_papers(load, tmp_path):
    read = check(html([finish(load())]), tmp_path / "results")
    (rte, _, _) = drawings(read, "Score and trained parameters")
    for told in (
        "pt: 51.5 with 6,912",
        "pt in the paper: 50 with 76.8K",
        "adept in the paper: 52.4 with 76.1K",
        "LoRA in the paper: 49.5 with 1.2M",
    ):
        assert told in rte


def test_offsets_that_records_measured_are_drawn(load, tmp_path):
    def sizes(mean):
        return {"mean": mean, "variance": 1.0, "norms": {"edges": [0.0, 1.0, 2.0, 3.0, 4.0], "counts": [0, 3, 1, 0]}}

    view = finish(load(), offsets={"tokens": 4, "embeddings": sizes(2.5), "offset": sizes(0.25), "released": {}})
    read = check(html([view]), tmp_path / "results")
    drawn = drawings(read, "Sizes of embeddings and offsets")
    assert len(drawn) == 8 and "offset: |element| 0.25 on average, variance 1" in drawn[0]
    assert next(iter(read.data["runs"].values()))["offsets"]["offset"] == {"mean": 0.25, "variance": 1}
    assert figures.histogram([0.0, 1.0, 2.0, 3.0, 4.0], [1, 2, 1, 0]) == [
        (0.5, 0.25),
        (1.0, 0.5),
        (2.0, 0.25),
        (3.0, 0.0),
    ]


def test_where_rows_are_tasks_each_is_a_panel(real):
    _, views = real
    (every,) = [view for view in views if view.table.name == "every_task"]
    assert [panel.label for panel in figures.panels(every)] == list(every.cells)
    assert {panel.metric for panel in figures.panels(every)} >= {"accuracy", "pearson", "squad_f1"}


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find()
    if program is None:
        pytest.skip(
            "no Chromium on this machine (Debian: apt-get install chromium): the page was not looked at in a browser"
        )
    one = Browser(program, tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def written(real, tmp_path_factory) -> Path:
    """The page of the real tables in a folder of its own, with a prediction that tries to be HTML."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(real[0], encoding="utf-8")
    return path


def quiet(browser, path):
    """The console said nothing and nothing but the page was asked for."""
    assert browser.messages == []
    assert {request.split("#")[0] for request in browser.requests} == {path.as_uri()}
    browser.requests.clear()


def test_a_record_opens_and_closes_by_keyboard(browser, written):
    browser.open(written, 1280)
    browser.press("Tab")
    assert browser.run("document.activeElement.className") == "skip"
    browser.press("Enter")
    browser.until("location.hash === '#tables'")
    for _ in range(30):
        browser.press("Tab")
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if browser.run("document.activeElement.matches('a.ours')"):
            break
    name = browser.run("document.activeElement.dataset.runs")
    browser.press("Enter")
    browser.until("document.querySelector('#record').open")
    assert browser.run("document.querySelector('#record-title').textContent") == name
    assert browser.run("document.querySelector('#record').contains(document.activeElement)")
    said = browser.run("document.querySelector('#record').innerText")
    for part in ("Configuration", "History", "Where it comes from", "First 30 test rows", "record (JSON)"):
        assert part in said
    browser.press("Escape")
    browser.until("!document.querySelector('#record').open")
    assert browser.run("document.activeElement.dataset.runs") == name
    quiet(browser, written)


def test_an_address_of_a_run_opens_it(browser, written, real):
    run = next(iter(Reader(real[0]).data["runs"].values()))
    browser.open(written, 1280)
    browser.run(f"location.hash = {json.dumps(run['anchor'])}")
    browser.until("document.querySelector('#record').open")
    assert browser.run("document.querySelector('#record-title').textContent") == run["run_id"]


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_page_never_scrolls_sideways(browser, written, width):
    browser.open(written, width)
    browser.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelector('a.ours').click()")
    assert (
        browser.run("(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)(document.querySelector('#record'))")
        <= 0
    )
    assert browser.run("document.documentElement.scrollWidth") <= width
    quiet(browser, written)


def test_filter_and_sort(browser, written):
    browser.open(written, 1280)
    shown = "[...document.querySelectorAll('#first_results > .scroll {}')].filter((part) => part.offsetParent)"
    rows, columns = (
        f"{shown.format('tbody tr')}.map((row) => row.cells[0].innerText)",
        f"{shown.format('thead th')}.length",
    )
    assert browser.run(rows) == ["zero_shot", "pt", "adept"] and browser.run(columns) == 5
    browser.run("document.querySelector('[name=task]').value = 'sst2'; document.querySelector('[name=words]').focus()")
    browser.write("adept")
    assert browser.run(rows) == ["adept"] and browser.run(columns) == 3
    assert browser.run("document.querySelector('#quickstart').offsetParent === null")  # its only task is movie_reviews
    assert browser.run("document.querySelector('#filter output').textContent") == "3 tables, 3 rows"
    browser.run("document.querySelector('[type=reset]').click()")
    browser.until("document.querySelector('#quickstart').offsetParent !== null")
    browser.run("document.querySelector('#first_results > .scroll thead th:nth-child(5) button').focus()")
    browser.press("Enter")
    assert browser.run(rows) == ["pt", "adept", "zero_shot"]
    assert (
        browser.run(
            "document.querySelector('#first_results > .scroll thead th:nth-child(5)').getAttribute('aria-sort')"
        )
        == "descending"
    )
    browser.press("Enter")
    assert browser.run(rows) == ["zero_shot", "adept", "pt"]
    browser.press("Enter")
    assert browser.run(rows) == ["zero_shot", "pt", "adept"]
    quiet(browser, written)


PAINT_OF_PLOTS = {
    ".line path": "stroke",
    ".level path": "stroke",
    ".grid path": "stroke",
    ".axis path": "stroke",
    ".dots :is(use, path)": "fill",
    "text": "fill",
}
"""The property that draws each part of a plot."""


def test_the_filter_hides_series_of_plots_and_their_names(browser, written):
    browser.open(written, 1280)
    browser.run("document.querySelector('#first_results details:has(figure)').open = true")
    parts = "[...document.querySelectorAll('#first_results :is(.figures g[data-method], .legend li)')]"
    visible = f"{parts}.filter((part) => part.getBoundingClientRect().height)"
    seen = f"[...new Set({visible}.map((part) => part.dataset.method))]"
    assert sorted(browser.run(seen)) == ["|adept|", "|pt|", "|zero_shot|"]
    browser.run("document.querySelector('[name=method]').value = 'pt'")
    browser.run("document.querySelector('[name=method]').dispatchEvent(new Event('input', {bubbles: true}))")
    assert browser.run(seen) == ["|pt|"]
    quiet(browser, written)


def test_the_style_sheet_colours_the_plots_in_light_and_dark(browser, written):
    """Lines, symbols and texts have a colour that the page's background has not."""
    for dark in (False, True):
        browser.open(written, 1280, dark=dark)
        ground = browser.run("getComputedStyle(document.documentElement).backgroundColor")
        for selector, paint in PAINT_OF_PLOTS.items():
            parts = f"[...document.querySelectorAll('figure {selector}')]"
            colours = set(browser.run(f"{parts}.map((part) => getComputedStyle(part).{paint})"))
            assert colours and colours.isdisjoint({ground, "none", "rgb(0, 0, 0)"}), (selector, colours)
    quiet(browser, written)


def test_dark_follows_the_readers_choice(browser, written):
    grounds = []
    for dark in (False, True):
        browser.open(written, 1280, dark=dark)
        grounds.append(browser.run("getComputedStyle(document.documentElement).backgroundColor"))
    assert grounds[0] != grounds[1]
    light, night = (sum(map(int, re.findall(r"\d+", ground)[:3])) for ground in grounds)
    assert light > 700 and night < 100
    quiet(browser, written)


def test_evil_records_stay_text_in_the_browser(browser, load, tmp_path):
    table = load(task="rte")
    view = finish(table, notes=[EVIL], timing={EVIL: 1.0}, provenance={"git": EVIL, "packages": {EVIL: EVIL}})
    for run in table.runs():
        write_predictions(run.config, [(EVIL, EVIL)] * 3)
    path = tmp_path / "results" / "index.html"
    write_page([view], path)
    browser.open(path, 1280)
    browser.run("window.alert = () => { document.title = 'broken'; }; document.querySelector('a.ours').click()")
    assert browser.run("document.querySelectorAll('img, #record script, [onclick], [onerror]').length") == 0
    assert browser.run("document.querySelector('#record .texts td:nth-child(2)').textContent") == EVIL
    assert browser.run("document.title") == "ADePT reproduced: results"
    seeds = "[...document.querySelectorAll('.seeds button')].map((button) => button.getAttribute('aria-pressed'))"
    assert browser.run(seeds) == ["true", "false"]
    browser.run("document.querySelectorAll('.seeds button')[1].click()")
    assert browser.run(seeds) == ["false", "true"]
    quiet(browser, path)


def test_damaged_predictions_are_left_out(tmp_path):
    path, good = tmp_path / "predictions.jsonl", {"id": "test:0", "prediction": "1", "references": ["0"]}
    path.write_text(json.dumps(good) + "\n[1]\n" + json.dumps({**good, "references": 3}) + "\n")
    assert runs.first_predictions(path, 9) == [["test:0", "1", ["0"]]]
    path.write_text(json.dumps(good) + '\n{"id": "te')
    assert runs.first_predictions(path, 9) == []
