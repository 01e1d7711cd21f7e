"""Paths in a YAML file begin at its folder; options for other runs in a shared file are named with their block."""

import pytest

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.tables.table_file import load_table

TASK = (
    "name: jokes\nfiles: {train: a.csv, validation: a.csv, test: a.csv}\ntext: [title]\n"
    "labels: {dull: 0, hilarious: 1}\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder beside the current one, with a task file and data."""
    inner = tmp_path / "project"
    (inner / "data").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (inner / "task.yaml").write_text(TASK)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return inner


def test_paths_of_a_config_file_begin_at_the_file(folder):
    file = folder / "run.yaml"
    file.write_text("task_file: task.yaml\ndata_dir: data\nresults_dir: out\n'@adept': {init_from: data}\n")
    config = resolve({"method": "adept"}, str(file))
    paths = [config.task_file, config.data_dir, config.results_dir, config.init_from]
    assert paths == [str(folder / name) for name in ("task.yaml", "data", "out", "data")]
    assert config.model == "t5-base"
    assert resolve({"task": "rte"}, None).results_dir == "results"


def test_names_stay_names(folder):
    file = folder / "run.yaml"
    file.write_text("task: rte\ndata_dir: fixtures\ninit_from: some-run-id\nmodel: someone/model\n")
    config = resolve({}, str(file))
    assert (config.data_dir, config.init_from, config.model) == ("fixtures", "some-run-id", "someone/model")


def test_paths_of_a_table_begin_at_the_table(folder):
    file = folder / "table.yaml"
    file.write_text(
        "title: t\nfields: {task_file: [task.yaml], results_dir: out}\n"
        "grid: [{method: pt, model: data}, {method: pt, cases: [{data_dir: data}]}]\n"
    )
    table = load_table(file, {})
    first, second = (run.config for run in table.runs())
    assert table.results_dir == folder / "out"
    assert (first.task_file, first.model, second.data_dir) == tuple(
        str(folder / name) for name in ("task.yaml", "data", "data")
    )


def test_a_path_below_the_current_folder_stays_short(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "run.yaml").write_text("task: rte\ndata_dir: data\n")
    assert resolve({}, "run.yaml").data_dir == "data"


def test_an_option_of_another_method_in_a_shared_file_is_named_with_its_block(folder):
    file = folder / "run.yaml"
    file.write_text("task: rte\nbottleneck: 10\n")
    assert resolve({"method": "adept"}, str(file)).bottleneck == 10
    with pytest.raises(UserError, match=r'in a file that several runs share, write "@adept": \{bottleneck: 10\}'):
        resolve({"method": "pt"}, str(file))
    file.write_text('task: rte\n"@adept": {bottleneck: 10}\n')
    assert resolve({"method": "pt"}, str(file)).get("bottleneck") is None


def test_a_task_files_label_words_are_what_a_model_says(folder):
    flags = {"task_file": str(folder / "task.yaml"), "method": "pt"}
    assert resolve(flags).targets == resolve({**flags, "model": "tiny-t5"}).targets == "words"
    assert resolve({**flags, "targets": "digits"}).targets == "digits"
    assert resolve({"task": "rte", "method": "pt"}).targets == "digits"
