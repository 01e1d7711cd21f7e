"""The report of a table as wandb's own client would send it, against real tracked runs; nothing leaves this machine."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from conftest import ROOT
from stand_in_wandb import REPORT_ID, Server, read_run

from adept.commands.dashboard import make_report
from adept.commands.main import main
from adept.runs.record import SCHEMA, write_record
from adept.tables.estimate import train_command
from adept.tables.launchers.in_process import InProcess
from adept.tables.markdown import markdown
from adept.tables.publish import publish_table
from adept.tables.report import View, build_view
from adept.tables.sweep import carry_out
from adept.tables.table import PlannedRun, Table
from adept.tables.table_file import load_table


@pytest.fixture
def library():
    return pytest.importorskip(
        "wandb_workspaces.reports.v2", reason="not installed: pip install -r requirements-wandb.txt"
    )


# Runs -----------------------------------------------------------------------------------------------------------------


TABLE = """\
title: Two methods
note: Made up.
fields: {{task: {tasks}, model: {model}, data_dir: {data}, device: cpu, steps: 2, eval_every: 1, log_every: 1,
         batch_size: 4, max_source_len: 64}}
grid:
  - {{method: pt, prompt_len: 9, prompt_lr: [0.1, 0.3]}}
  - {{method: adept, prompt_len: 5, bottleneck: 3}}
"""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, model_folders, data_dir):
    """(the table's view, {run id: what wandb has of the run}) of a real sweep with --track wandb, offline."""
    folder = tmp_path_factory.mktemp("tracked")
    file = folder / "two.yaml"
    file.write_text(TABLE.format(tasks="cb", model=model_folders["t5"], data=data_dir))
    table = load_table(file, {"results_dir": str(folder / "results"), "track": "wandb"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        assert carry_out([table], InProcess()) == {}
    runs = [read_run(path) for path in folder.glob("results/runs/*/wandb/offline-run-*/*.wandb")]
    return build_view(table), {run.name: run for run in runs}


def write_made_up_record(run: PlannedRun, validation: float, **config):
    """The record that the run would leave, with other values of some options."""
    metrics = {"accuracy": validation, "f1_macro": validation}
    record = {
        "schema": SCHEMA, "run_id": run.id, "config": run.config.flat() | config, "notes": [], "timing": {},
        "trainable_params": 9, "history": [{"step": 2, "validation": metrics}], "best_step": 2, "validation": metrics,
        "test": metrics, "sizes": {"train": 9, "validation": 9, "test": 999},
    }  # fmt: skip
    write_record(run.config.results_dir, record)


def load(folder: Path, text: str, **overrides) -> Table:
    file = folder / "two.yaml"
    file.write_text(text)
    return load_table(file, {"results_dir": str(folder / "results"), **overrides})


# Groups ---------------------------------------------------------------------------------------------------------------


def test_a_sweeps_runs_are_one_group_named_after_the_table(tracked):
    view, runs = tracked
    assert set(runs) == {run.id for run in view.table.runs()}
    assert [run.group for run in runs.values()] == ["two"] * 3
    assert sorted([run.job_type, *run.tags] for run in runs.values()) == [
        [method, "cb", method, "tiny-t5", "paper"] for method in ("adept", "pt", "pt")
    ]


def test_a_group_of_ones_own_stands_and_no_group_changes_a_run(tmp_path):
    text = TABLE.format(tasks="[rte, cb]", model="tiny", data="d")
    runs = load(tmp_path, text).runs()
    assert {run.config.wandb_group for run in runs} == {"two"}
    assert all("--wandb_group two" in train_command(run.flags) for run in runs)
    table = dataclasses.replace(load(tmp_path, text), profile="smoke")
    assert {run.config.wandb_group for run in table.runs()} == {"two-smoke"}  # its runs are no mean with the table's
    mine = load(tmp_path, text, wandb_group="mine").runs()
    assert {run.config.wandb_group for run in mine} == {"mine"}
    assert [run.id for run in mine] == [run.id for run in runs]
    in_file = load(tmp_path, text.replace("- {method: pt,", "- {method: pt, wandb_group: theirs,")).runs()
    assert [(run.config.method, run.config.wandb_group) for run in in_file[::2]] == [
        ("pt", "theirs"),
        ("pt", "theirs"),
        ("adept", "two"),
    ]


def test_project_and_group_are_no_change_of_a_tables_runs(tmp_path):
    table = load(
        tmp_path,
        TABLE.format(tasks="rte", model="tiny", data="d"),
        wandb_group="mine",
        wandb_project="ours",
        track="wandb",
    )
    assert "Changed" not in markdown(build_view(table))


# Spec -----------------------------------------------------------------------------------------------------------------


def spec_of(view: View) -> dict:
    model = make_report(view, "me", "adept", offline=True)._to_model()
    return json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))


def sections(spec: dict) -> dict[str, list[SimpleNamespace]]:
    """{task: its panel grids}, each with its filters, grouping and panels by their kind."""
    found: dict[str, list] = {}
    for block in spec["blocks"]:
        if block["type"] == "heading":
            name = block["children"][0]["text"]
            found[name] = []
        elif block["type"] == "panel-grid":
            (runs,) = block["metadata"]["runSets"]
            panels: dict[str, list] = {}
            for panel in block["metadata"]["panelBankSectionConfig"]["panels"]:
                panels.setdefault(panel["viewType"], []).append(panel["config"])
            filters = [readable(part) for part in runs["filters"]["filters"]]
            found[name].append(SimpleNamespace(runs=runs, filters=filters, grouping=runs["grouping"], panels=panels))
    return found


def readable(part: dict):
    """("run group", "IN", value), or a list of them joined by its connectors."""
    if "filters" in part:
        return [(inner.get("connector"), *readable(inner)) for inner in part["filters"]]
    assert not part["disabled"] and part.get("connector") in (None, "AND", "OR")
    return f"{part['key']['section']} {part['key']['name']}", part["op"], part["value"]


GROUP = ("run group", "IN", ["two"])
STATE = ("run state", "IN", ["running", "finished"])


def test_every_key_of_the_report_is_one_that_runs_log(library, tracked):
    view, runs = tracked
    ((compared, searched),) = sections(spec_of(view)).values()
    history, summary, config = (
        {key for run in runs.values() for key in getattr(run, part)} for part in ("history", "summary", "config")
    )

    lines = compared.panels["Run History Line Plot"]
    assert [line["metrics"] for line in lines] == [
        ["validation/accuracy"], ["validation/f1_macro"], ["train/loss"], ["train/prompt_lr"], ["train/offset_lr"]
    ]  # fmt: skip
    assert all(set(line["metrics"]) <= history for line in lines)
    assert {line["xAxis"] for line in lines} == {"step"} <= history
    (bars,) = compared.panels["Bar Chart"]
    assert bars["metrics"] == ["test/accuracy"] and "test/accuracy" in summary
    for panel in (*lines, bars):
        assert (panel["groupAgg"], panel["groupArea"], panel["limit"]) == ("mean", "stddev", 100)

    (scatter,) = searched.panels["Scatter Plot"]
    (parallel,) = searched.panels["Parallel Coordinates Plot"]
    columns = [column["accessor"] for column in parallel["columns"]]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:trainable_params.value", "summary:test/accuracy")
    assert columns == [
        "config:method.value",
        "config:prompt_lr.value",
        "summary:best/f1_macro",
        "summary:test/accuracy",
    ]
    assert [column.get("log") for column in parallel["columns"]] == [None, True, None, None]
    for accessor in (scatter["xAxis"], scatter["yAxis"], *columns):
        section, key = accessor.split(":")
        assert key.removesuffix(".value") in (config if section == "config" else summary), accessor


def test_numbers_on_wandb_are_the_records(tracked):
    view, runs = tracked
    for run in view.table.runs():
        there, record = runs[run.id], run.record
        assert (there.config["run_id"], there.config["trainable_params"]) == (run.id, record["trainable_params"])
        assert {name: there.summary[f"test/{name}"] for name in record["test"]} == record["test"]
        assert {name: there.summary[f"best/{name}"] for name in record["validation"]} == record["validation"]
        assert there.summary["best_step"] == record["best_step"]


def test_runs_are_the_tables_group_without_those_that_validation_decided_against(library, tracked):
    view, _ = tracked
    ((compared, searched),) = sections(spec_of(view)).values()
    rates = {run.id: run.record["validation"]["f1_macro"] for run in view.table.runs() if run.config.method == "pt"}
    loser = min(reversed(rates), key=rates.get)
    assert compared.filters == [GROUP, ("config task", "=", "cb"), STATE, ("config run_id", "NIN", [loser])]
    assert searched.filters == [GROUP, ("config task", "=", "cb"), STATE]
    assert compared.grouping == [{"section": "config", "name": "method.value"}]
    assert searched.grouping == []


def test_every_task_has_its_section_and_other_axes_group(library, tmp_path):
    text = (
        TABLE.format(tasks="[rte, cb]", model="tiny", data="d")
        + "rows: [method, prompt_len]\ncolumns: [task, quantity]\n"
    )
    spec = sections(spec_of(build_view(load(tmp_path, text))))
    assert list(spec) == ["rte", "cb"]
    for task, (compared, searched) in spec.items():
        assert compared.filters == searched.filters == [GROUP, ("config task", "=", task), STATE]
        assert [key["name"] for key in compared.grouping] == ["method.value", "prompt_len.value"]
    assert [line["metrics"] for line in spec["rte"][0].panels["Run History Line Plot"]][:2] == [
        ["validation/accuracy"],
        ["train/loss"],
    ]


def test_a_run_that_another_table_made_is_found_by_its_id(library, tmp_path):
    table = load(tmp_path, TABLE.format(tasks="rte", model="tiny", data="d"))
    low, high, adept = table.runs()
    write_made_up_record(low, 70)
    write_made_up_record(high, 60)
    write_made_up_record(adept, 80, wandb_group="table1")
    ((compared, searched),) = sections(spec_of(build_view(table))).values()
    either = [(None, *GROUP), ("OR", "config run_id", "IN", [adept.id])]
    assert searched.filters == [either, ("config task", "=", "rte"), STATE]
    assert compared.filters == [either, ("config task", "=", "rte"), STATE, ("config run_id", "NIN", [high.id])]


def test_runs_that_are_not_shown_are_not_compared(library, tmp_path):
    table = load(
        tmp_path,
        TABLE.format(tasks="rte", model="tiny", data="d").replace("bottleneck: 3", "bottleneck: 3, show: false"),
    )
    (hidden,) = [run for run in table.runs() if run.config.method == "adept"]
    ((compared, searched),) = sections(spec_of(build_view(table))).values()
    assert compared.filters[3:] == [("config run_id", "NIN", [hidden.id])]
    assert searched.filters[3:] == []


def test_runs_that_are_given_no_group_are_found_where_the_tracker_puts_them(library, tmp_path):
    table = load(
        tmp_path,
        TABLE.format(tasks="rte", model="tiny", data="d").replace("bottleneck: 3", "bottleneck: 3, wandb_group: null"),
    )
    ((compared, searched),) = sections(spec_of(build_view(table))).values()
    assert compared.filters[0] == searched.filters[0] == ("run group", "IN", ["rte-tiny", "two"])


def test_the_report_shows_our_table_as_it_is_printed(library, tracked):
    view, _ = tracked
    (block,) = [block for block in spec_of(view)["blocks"] if block["type"] == "markdown-block"]
    publish_table(view.table)
    assert block["content"] == (view.table.results_dir / "tables" / "two.md").read_text(encoding="utf-8")


# Sending --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.sent, server.read_only = [], False
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def account(server, tmp_path, monkeypatch):
    """account(key): wandb's settings of this process as of an account with that key on the server, or of none."""

    def use(key: str | None):
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            monkeypatch.delenv(name)
        given = {
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
            "WANDB_SILENT": "true",
            "HOME": str(tmp_path),
        }
        for name, value in (given | ({"WANDB_API_KEY": key} if key else {})).items():
            monkeypatch.setenv(name, value)
        wandb.teardown()  # settings are read once a process

    yield use
    wandb.teardown()


def words_of(view: View) -> list[str]:
    """The table and what the sweep was given beside it."""
    overrides = [word for name, value in view.table.overrides.items() for word in (f"--{name}", value)]
    return [str(view.table.results_dir.parent / "two.yaml"), *overrides]


def test_the_report_is_sent_and_sent_again_in_its_own_place(library, tracked, server, account, capsys):
    view, _ = tracked
    address = f"http://127.0.0.1:{server.server_port}/me/adept/reports/two:-Two-methods--{REPORT_ID}\n"
    count = "3 of the table's 3 finished runs were tracked (--track wandb)\n"
    account("k" * 40)
    words = [sys.executable, "-m", "adept", "dashboard", *words_of(view), "--entity", "me", "--project", "adept"]
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SILENT"}
    done = subprocess.run(
        words, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, cwd=ROOT, timeout=300
    )
    assert (done.stderr, done.stdout, done.returncode) == (count, address, 0)
    assert main(["dashboard", *words_of(view)]) == 0  # as the login and the runs say
    assert capsys.readouterr() == (address, count)
    assert [sent["id"] for sent in server.sent] == [None, REPORT_ID]
    expected = sections(spec_of(view))
    for sent in server.sent:
        assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("me", "adept", "two: Two methods")
        for grid, offline in zip(sections(json.loads(sent["spec"]))["cb"], expected["cb"], strict=True):
            assert grid.runs["project"] == {"name": "adept", "entityName": "me", "id": "internal"}
            assert (grid.filters, grid.grouping, grid.panels) == (offline.filters, offline.grouping, offline.panels)


@pytest.mark.parametrize(
    ("arguments", "key", "read_only", "named"),
    [
        ([], None, False, "WANDB_API_KEY names your account"),
        (["--project", "adapt"], "k" * 40, False, "no project me/adapt"),
        ([], "k" * 40, True, "permission denied"),
    ],
    ids=["no login", "no such project", "no permission"],
)
def test_what_wandb_refuses_is_one_line(arguments, key, read_only, named, library, tracked, server, account, capsys):
    server.read_only = read_only
    account(key)
    assert main(["dashboard", *words_of(tracked[0]), *arguments]) == 2
    shown = capsys.readouterr()
    assert (shown.out, server.sent) == ("", [])
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert named in shown.err


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    load(tmp_path, TABLE.format(tasks="rte", model="tiny", data="d"))
    for words in ([], ["--dry_run"]):
        assert main(["dashboard", str(tmp_path / "two.yaml"), *words]) == 2
        shown = capsys.readouterr()
        assert shown == (
            "",
            "error: the report needs the package wandb-workspaces: pip install -r requirements-wandb.txt\n",
        )
    assert (ROOT / "requirements-wandb.txt").is_file()


def test_a_dry_run_prints_the_spec_and_asks_nobody(library, tracked, monkeypatch, capsys):
    view, _ = tracked
    monkeypatch.setattr("wandb.Api", None)
    assert main(["dashboard", *words_of(view), "--entity", "me", "--dry_run"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["displayName"], printed["project"]) == ("two: Two methods", {"name": "adept", "entityName": "me"})
    ((compared, _),) = sections(printed["spec"]).values()
    assert compared.filters[0] == GROUP


@pytest.mark.parametrize(
    ("words", "named"), [(["nowhere.yaml"], "cannot read nowhere.yaml"), (["--entiti", "x"], "'entity'"), ([], "table")]
)
def test_a_mistake_on_the_command_line_is_one_line(words, named, capsys):
    assert main(["dashboard", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert named in shown.err
