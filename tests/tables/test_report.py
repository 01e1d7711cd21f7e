"""A table's file to commands, and its run records to the printed table: chosen by validation, scored by test."""

import json
import shlex

import pytest

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError
from adept.commands.main import main
from adept.config.command_line import command_line, parse
from adept.config.layers import resolve
from adept.runs.record import SCHEMA, read_record, write_record
from adept.tables.estimate import train_command
from adept.tables.markdown import markdown
from adept.tables.report import build_view
from adept.tables.table import expand
from adept.tables.table_file import check_overrides, load_table

TABLE = """\
title: Two methods on two tasks
note: Made up.
fields: {model: tiny, task: [rte, cb], seed: [1, 2], prompt_lr: [0.1, 0.3]}
grid:
  - {method: pt, prompt_len: 9}
  - {method: adept, prompt_len: 5, bottleneck: 3}
"""


@pytest.fixture
def table_file(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text(TABLE)
    return file


def load(file, **overrides):
    return load_table(file, {"results_dir": str(file.parent / "results"), **overrides})


def load_view(file, **overrides):
    return build_view(load(file, **overrides))


def configs(table):
    return [run.config for run in table.runs()]


def write_made_up_record(config):
    """Rate 0.1 is better on the metric that selects, rate 0.3 on every other; seed 2 is one point above seed 1."""
    is_low, above = config.prompt_lr == 0.1, config.seed - 1
    test = (51 if is_low else 91) + (config.method == "adept") + above
    validation = {"accuracy": 10 if is_low else 99, config.select_on: (80 if is_low else 70) + above}
    record = {
        "schema": SCHEMA, "run_id": config.run_id, "config": config.flat(), "best_step": 20,
        "trainable_params": {"pt": 6912, "adept": 6923}[config.method],
        "notes": ["small"] if config.task == "cb" else [],
        "sizes": {"train": 100, "validation": 50, "test": 400}, "timing": {},
        "history": [{"step": 10, "validation": {**validation, "accuracy": 1}}, {"step": 20, "validation": validation}],
        "validation": validation, "test": {"accuracy": test, "f1_macro": 5},
    }  # fmt: skip
    return write_record(config.results_dir, record)


def printed_row(text: str, name: str) -> list[str]:
    table = text[text.index("| trained parameters |") :].split("\n\n")[0]  # not those of tests and choices below it
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# Report ---------------------------------------------------------------------------------------------------------------


def test_the_rate_is_chosen_by_validation_and_its_test_score_is_printed(table_file):
    table = load(table_file)
    for config in configs(table):
        write_made_up_record(config)
    text = markdown(build_view(table))
    assert len(configs(table)) == 16
    assert "**Two methods on two tasks**" in text
    assert "| method | trained parameters | rte (accuracy) | cb (accuracy) |" in text
    assert printed_row(text, "pt") == ["6,912", "51.5 ± 0.7 (2)", "51.5 ± 0.7 (2)"]
    assert printed_row(text, "adept") == ["6,923", "52.5 ± 0.7 (2)", "52.5 ± 0.7 (2)"]
    assert "Made up." in text
    assert "cb: small" in text
    assert "missing" not in text
    assert "Changed" not in text


def test_remarks_stand_below_the_table_where_their_row_or_column_is_printed(table_file):
    remarks = "remarks: {pt: of a row, cb: of a column <b>, lora: of no row}\n"
    table_file.write_text(table_file.read_text() + remarks)
    lines = markdown(build_view(load(table_file))).splitlines()
    assert "* pt: of a row" in lines and "* cb: of a column &lt;b&gt;" in lines
    assert not any("of no row" in line for line in lines)


def test_missing_runs_are_printed_as_a_dash_and_counted(table_file):
    table = load(table_file)
    for config in configs(table):
        if (config.method, config.task) == ("pt", "rte"):
            write_made_up_record(config)
    text = markdown(build_view(table))
    assert printed_row(text, "pt") == ["6,912", "51.5 ± 0.7 (2)", "–"]
    assert printed_row(text, "adept") == ["–", "–", "–"]
    assert "12 of 16 runs are missing" in text


def test_an_incomplete_group_is_not_preferred_over_a_complete_one(table_file):
    table = load(table_file)
    for config in configs(table):
        if (config.prompt_lr, config.seed) != (0.1, 2):  # of the better rate, one seed has not run yet
            write_made_up_record(config)
    text = markdown(build_view(table))
    assert printed_row(text, "pt") == ["6,912", "91.5 ± 0.7 (2)", "91.5 ± 0.7 (2)"]
    assert "4 of 16 runs are missing" in text


def test_of_incomplete_groups_only_what_is_there_is_printed(table_file):
    table = load(table_file)
    for config in configs(table):
        if config.seed == 2:
            write_made_up_record(config)
    assert printed_row(markdown(build_view(table)), "pt") == ["6,912", "52.0 (1)", "52.0 (1)"]


def test_overrides_are_told_above_the_table(table_file):
    text = markdown(load_view(table_file, steps="5", task="rte", eval_batch_size="9"))
    assert "Changed for all runs: steps = 5, task = rte." in text
    assert "rte (accuracy)" in text
    assert "cb" not in text


def test_main_prints_the_table_and_writes_it_beside_its_curves(table_file, tmp_path, capsys):
    for config in configs(load(table_file)):
        write_made_up_record(config)
    assert main(["report", str(table_file), "--results_dir", str(tmp_path / "results")]) == 0
    written = (tmp_path / "results" / "tables" / "two.md").read_text(encoding="utf-8")
    assert written in capsys.readouterr().out
    assert written == markdown(load_view(table_file))
    assert (tmp_path / "results" / "tables" / "two.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


# Records --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"schema": 1, "run', "no readable run record"),
        (b"\xff\xfe", "no readable run record"),
        (b"", "no readable run record"),
        (b'{"schema": 0}', "schema 1"),
        (b"{}", "schema 1"),
        (b"[1]", "schema 1"),
    ],
)
def test_a_file_that_is_no_record_is_named_in_one_line(content, named, table_file, tmp_path, capsys):
    path = write_made_up_record(configs(load(table_file))[0])
    path.write_bytes(content)
    with pytest.raises(UserError, match=named) as caught:
        read_record(str(tmp_path / "results"), path.stem)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    for command in ("sweep", "report"):
        assert main([command, str(table_file), "--results_dir", str(tmp_path / "results")]) == 2
        assert capsys.readouterr() == ("", f"error: {caught.value}\n")


def test_a_record_is_found_as_it_was_written(table_file):
    config = configs(load(table_file))[0]
    assert read_record(config.results_dir, config.run_id) is None
    path = write_made_up_record(config)
    assert read_record(config.results_dir, config.run_id) == json.loads(path.read_text())


def test_writing_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_atomically(path, "a long first text\n")
    write_atomically(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new" + "\ud800")  # a lone surrogate has no UTF-8
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_with_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_record(str(tmp_path), {"run_id": "x", "test": {"accuracy": float("nan")}})
    assert read_record(str(tmp_path), "x") is None


# Sweep ----------------------------------------------------------------------------------------------------------------


def test_expand_runs_every_combination_of_lists():
    runs = expand({"method": "pt", "task": ["rte", "cb"], "seed": [1, 2, 3]}, {"steps": "5"})
    assert [(run["task"], run["seed"]) for run in runs] == [
        (task, seed) for task in ("rte", "cb") for seed in (1, 2, 3)
    ]
    assert all(run["method"] == "pt" and run["steps"] == "5" for run in runs)


def test_overrides_and_common_fields_reach_only_methods_that_use_them():
    (adept, lora) = expand(
        {"method": ["adept", "lora"], "prompt_lr": 0.1}, {"bottleneck": "4", "lr": "0.2", "prompt_lr": "0.5"}
    )
    assert adept == {"method": "adept", "prompt_lr": "0.5", "bottleneck": "4"}
    assert lora == {"method": "lora", "lr": "0.2"}


def test_an_override_replaces_a_list(table_file):
    assert {config.seed for config in configs(load(table_file, seed="7"))} == {7}
    assert len(configs(load(table_file, seed="7"))) == 8


def test_dry_run_prints_commands_that_make_the_same_runs(table_file, capsys):
    words = ["--dry_run", "--prompt_init", "text", "--prompt_init_text", "It's good:"]
    assert main(["sweep", str(table_file), *words]) == 0
    shown = capsys.readouterr()
    commands = [shlex.split(line) for line in shown.out.splitlines()]
    assert all(words[:2] == ["python", "train.py"] for words in commands)
    made = [resolve(parse(command_line(""), words[2:])[0]) for words in commands]
    assert made == configs(load_table(table_file, {"prompt_init": "text", "prompt_init_text": "It's good:"}))
    assert shown.err.startswith("16 runs, ")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("titel: x\ngrid: [{method: pt}]", ["'titel'", "'title'"]),
        ("grid: [{method: pt}]", ["'title'", "missing"]),
        ("title: x", ["'grid'", "missing"]),
        ("title: x\ngrid: []", ["'grid'", "empty"]),
        ("title: x\ngrid: {method: pt}", ["'grid'", "list"]),
        ("title: x\ngrid: pt", ["'grid'", "list"]),
        ("title: x\nfields: [rte]\ngrid: [{method: pt}]", ["'fields'", "mapping"]),
        ("title: x\nrows: methods\ngrid: [{task: rte}]", ["'methods'", "'method'"]),
        ("title: x\ngrid: [{task: rte, methd: pt}]", ["'methd'", "'method'"]),
        ("title: x\ngrid: [{task: rte, method: ptt}]", ["'ptt'", "'pt'"]),
        ("title: x\ngrid: [{task: rte, seed: [1, two]}]", ["--seed", "'two'"]),
        ("title: x\ngrid: [{method: pt}]", ["--task is missing"]),
        ("[]", ["bad.yaml"]),
    ],
)
@pytest.mark.parametrize("command", ["sweep", "report"])
def test_a_bad_table_gets_one_line(content, named, command, tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    assert main([command, str(file), "--results_dir", str(tmp_path / "results")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert [part for part in named if part not in shown.err] == [], shown.err


def test_two_entries_of_one_run_are_one_run(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text(
        "title: t\nfields: {task: rte, prompt_lr: [0.1, 0.3]}\n"
        "grid: [{method: [pt, full]}, {method: zero_shot, steps: [1, 2]}]\n"
    )
    assert sorted(config.method for config in configs(load(file))) == ["full", "pt", "pt", "zero_shot"]
    file.write_text(
        "title: t\nfields: {task: rte, method: pt}\n"
        "grid: [{quantities: [score]}, {show: false, quantities: [GB]}, {quantities: [hours, score]}]\n"
    )
    (run,) = load(file).runs()
    assert run.shown and run.quantities == ("score", "hours")  # not what a hidden entry would print


@pytest.mark.parametrize(
    ("grid", "named"),
    [
        ("[pt]", "'pt'"),
        ("[{method: {a: b}}]", "'method'"),
        ("[{seed: []}]", "'seed'"),
        ("[{methd: pt}]", "unknown field 'methd'"),
    ],
)
def test_grid_entries_of_another_form_are_named_with_their_file(tmp_path, grid, named):
    file = tmp_path / "bad.yaml"
    file.write_text(f"title: t\nfields: {{task: rte}}\ngrid: {grid}\n")
    with pytest.raises(UserError, match=named) as caught:
        load(file).runs()
    assert "bad.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_an_override_that_no_run_uses_is_refused(table_file):
    with pytest.raises(UserError, match=r"--lora_alpha 3 has no effect on any run of .*two\.yaml"):
        check_overrides([load(table_file, lora_alpha="3")])


def test_an_empty_value_survives_the_printed_command():
    words = shlex.split(train_command({"task": "rte", "few_shot": None}))
    assert parse(command_line(""), words[2:])[0] == {"task": "rte", "few_shot": None}


def test_tables_take_no_second_config_file(table_file, capsys):
    assert main(["sweep", str(table_file), "--config", "nowhere.yaml"]) == 2
    assert "unknown flag --config" in capsys.readouterr().err


def test_a_record_without_its_parts_is_refused(table_file):
    path = write_made_up_record(configs(load(table_file))[0])
    path.write_text('{"schema": 1}')
    with pytest.raises(UserError, match="lacks best_step, config"):
        read_record(str(table_file.parent / "results"), path.stem)


def test_a_failed_replacement_leaves_no_temporary_file(tmp_path):
    (tmp_path / "record.json").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "record.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_runs_that_start_from_another_seeds_run_are_one_configuration(tmp_path):
    """Tables 1, 2 and 11: each seed starts from its own run, and the cell has the mean over all."""
    file = tmp_path / "shift.yaml"
    file.write_text(
        "title: t\nfields: {task: rte, model: tiny, prompt_lr: 0.1}\nseeds: [1, 2]\n"
        "grid:\n"
        "- {name: trained, show: false, method: adept, prompt_len: 5, bottleneck: 3}\n"
        "- {from: trained, without_offset: [false, true]}\n"
        "columns: without_offset\n"
    )
    for _ in range(2):
        for config in configs(load(file)):
            if read_record(config.results_dir, config.run_id) is None:
                write_made_up_record(config)
    view = load_view(file)
    assert [len(view.cells["adept"][column].values) for column in ("False", "True")] == [2, 2]
