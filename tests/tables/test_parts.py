"""A part of a table, changed options, and where their files go; a report that needs no flags again."""

import json

import pytest
from conftest import ROOT
from made_up_tables import make_table, write_made_up_record

from adept.base.errors import UserError
from adept.base.marked_blocks import write_block
from adept.commands.main import main
from adept.tables.markdown import markdown
from adept.tables.publish import publish_all, publish_table
from adept.tables.report import build_view
from adept.tables.table_file import load_table

GRID = """\
fields: {task: [rte, cb], model: tiny-t5}
grid: [{method: [pt, adept]}]
"""


@pytest.fixture
def load(tmp_path):
    make_table(tmp_path, GRID)
    return lambda only=(), **overrides: load_table(
        tmp_path / "made_up.yaml", {"results_dir": str(tmp_path / "results"), **overrides}, None, only
    )


# Parts ----------------------------------------------------------------------------------------------------------------


def test_the_papers_rte_row_is_24_configurations_and_two_more_seeds(tmp_path):
    only = ["task=rte", "method=adept"]
    runs = load_table(ROOT / "configs" / "table3.yaml", {"results_dir": str(tmp_path)}, None, only).runs()
    assert [run.pending for run in runs] == [False] * 24 + [True] * 2
    assert {(run.config.task, run.config.method) for run in runs} == {("rte", "adept")}


def test_several_values_of_one_option_are_alternatives(load):
    runs = load(["task=@superglue", "method=pt", "method=adept"]).runs()
    assert [(run.config.task, run.config.method) for run in runs] == [("cb", "pt"), ("cb", "adept")]


def test_a_part_brings_the_runs_that_it_starts_from(tmp_path):
    table = make_table(
        tmp_path,
        "fields: {task: rte}\ngrid:\n"
        "- {name: trained, show: false, method: [pt, adept]}\n- {from: trained, eval_rows: [3, 4]}\n"
        "columns: eval_rows",
    )
    part = load_table(tmp_path / "made_up.yaml", table.overrides, None, ["method=adept", "eval_rows=3"])
    assert [(run.config.method, run.config.steps > 0, run.shown) for run in part.runs()] == [
        ("adept", True, False),
        ("adept", False, True),
    ]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--only", "task"], "it looks like --only task=rte"),
        (["--only", "tsk=rte"], "'task'"),
        (["--only", "task=sst2"], "--only task=sst2 leaves no run of .*, whose runs have task: cb, rte"),
        (["--only", "steps=many"], "--steps must be a whole number"),
    ],
)
def test_a_wrong_part_is_one_line(load, tmp_path, capsys, words, named):
    load()
    assert main(["sweep", str(tmp_path / "made_up.yaml"), "--dry_run", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(AssertionError, match=named):
        raise AssertionError(error)


def test_the_heading_tells_a_part_and_what_a_model_has_of_its_own(load):
    assert "A part of the table: task = rte, method = pt or adept." in markdown(
        build_view(load(["task=rte", "method=pt", "method=adept"]))
    )
    settings = "configs/base.yaml sets for smollm2-135m: targets = words, prompt_lr = 0.01, offset_lr = 0.001."
    assert settings in markdown(build_view(load(model="smollm2-135m")))
    assert "base.yaml" not in markdown(build_view(load()))


# Files ----------------------------------------------------------------------------------------------------------------


def test_profiles_parts_and_options_write_files_of_their_own(load, tmp_path):
    names = [
        load().file_name,
        load(["task=rte"]).file_name,
        load(steps="5", device="cpu", data_dir="fixtures").file_name,
        load_table(tmp_path / "made_up.yaml", {}, "laptop").file_name,
    ]
    assert names == ["made_up", "made_up-task=rte", "made_up-steps=5", "made_up-laptop"]
    assert len(load(prompt_init_text="x" * 500).file_name) < 30
    publish_table(load(["task=rte"]))
    assert {path.name for path in (tmp_path / "results" / "tables").iterdir()} == {
        "made_up-task=rte.md",
        "made_up-task=rte.csv",
    }


def test_all_tables_leave_the_words_around_them(load, tmp_path):
    document = tmp_path / "results" / "README.md"
    publish_all([load()])
    made = document.read_text()
    assert made.startswith("# Results") and made.count("<!-- end -->") == 3
    document.write_text(made.replace("# Results", "# By hand") + "\nThe end.\n")
    publish_all([load()])
    assert document.read_text() == made.replace("# Results", "# By hand") + "\nThe end.\n"
    publish_all([load(steps="5")])
    assert "steps = 5" not in document.read_text()
    assert "steps = 5" in (tmp_path / "results" / "README-steps=5.md").read_text()


def test_a_block_is_written_where_its_marks_are(tmp_path):
    path = tmp_path / "page.md"
    write_block(path, "a", "one\n", "# Page")
    write_block(path, "b", r"two \1", "# Page")
    assert path.read_text() == (
        "# Page\n\n<!-- table: a -->\none\n<!-- end -->\n\n<!-- table: b -->\ntwo \\1\n<!-- end -->\n"
    )
    write_block(path, "a", "three", "# Page")
    assert "three" in path.read_text() and "one" not in path.read_text() and "two" in path.read_text()


# Manifests ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def swept(load, tmp_path, monkeypatch):
    """swept(*flags): starts a sweep of the table that does nothing."""
    load()
    monkeypatch.setattr("adept.commands.sweep.run_tables", lambda *_: {})
    places = [str(tmp_path / "made_up.yaml"), "--results_dir", str(tmp_path / "results")]
    return lambda command, *flags: main([command, *places, *flags])


def test_a_report_has_the_flags_of_its_sweep(swept, load, capsys):
    assert swept("sweep", "--steps", "7", "--only", "task=rte") == 0
    for run in load(["task=rte"], steps="7").runs():
        write_made_up_record(run, 40)
    capsys.readouterr()
    assert swept("report", "--page") == 0
    shown = capsys.readouterr()
    assert shown.err == "as it was swept: --only task=rte --steps 7\n"
    assert "A part of the table: task = rte." in shown.out and "| pt | 7 | 60.0 (1) |" in shown.out
    page = (load().results_dir / "tables" / "made_up-task=rte-steps=7.html").read_text()
    assert "<h1>Made up</h1>" in page and "pt, adept on rte." in page and "ADePT" not in page.split("<main")[0]


def test_several_sweeps_of_a_table_are_not_guessed(swept, capsys):
    assert swept("sweep", "--steps", "7") == swept("sweep", "--steps", "8") == 0
    capsys.readouterr()
    assert swept("report") == 2
    assert "was swept in several ways" in (error := capsys.readouterr().err)
    assert "repeat the flags of one: --steps 7 | --steps 8" in error
    assert swept("report", "--steps", "8") == 0
    assert swept("sweep") == swept("report") == 0  # as it is written
    assert "Changed" not in capsys.readouterr().out.split("records:")[-2]


@pytest.mark.parametrize("content", ["{", "[]", '{"table": 3}', '{"table": "made_up", "more": 1}'])
def test_a_damaged_manifest_is_one_line(swept, load, capsys, content):
    folder = load().results_dir / "tables"
    folder.mkdir(parents=True)
    (folder / "made_up-steps=7.sweep.json").write_text(content)
    assert swept("report") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_manifest_holds_no_results_folder(swept, load):
    swept("sweep", "--steps", "7")
    content = json.loads((load().results_dir / "tables" / "made_up-steps=7.sweep.json").read_text())
    assert content == {"table": "made_up", "profile": "", "options": {"steps": "7"}, "only": []}


def test_an_empty_part_is_refused_before_anything_is_written(swept, load):
    assert swept("sweep", "--only", "task=sst2") == 2
    assert not load().results_dir.exists()


def test_only_needs_an_equals_sign(load):
    with pytest.raises(UserError, match="--only rte"):
        load(["rte"])
