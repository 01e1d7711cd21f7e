"""The one line that each bad task file gets."""

import pytest
import yaml
from task_files import BASE, GONE, files, free, refused

BAD_YAML = {
    # the file
    "empty": ("", "'name' is missing"),
    "comments only": ("# nothing\n", "'name' is missing"),
    "a list": ("- name: jokes\n", "must hold 'field: value' lines"),
    "a word": ("jokes\n", "must hold 'field: value' lines"),
    "not YAML": ("name: [jokes\n", "not valid YAML"),
    "a tab": ("name:\n\tjokes\n", "not valid YAML"),
    "a Python object": ("name: !!python/object:os.system x\n", "not valid YAML"),
    "binary": (b"\x00\x01\x02\xff", "cannot read"),
    "not UTF-8": ("name: b\u00fcro\n".encode("latin-1"), "cannot read"),
    "duplicate key": ("name: jokes\nname: puns\n", "key 'name' is written twice"),
    "duplicate split": ("name: jokes\nfiles: {train: a.csv, train: b.csv}\n", "key 'train' is written twice"),
    "duplicate label": ("name: jokes\nlabels: {dull: 0, dull: 1}\n", "key 'dull' is written twice"),
    # keys
    "unknown key": ({"lable": "funny"}, "unknown key 'lable'", "did you mean 'label"),
    "unknown key of two lines": ({"a\nb": 1}, r"unknown key 'a\nb'; "),
    "number as key": ({3: 1}, "unknown key '3'"),
    "an empty value": ({"report": None}, "'report' must be text, not None"),
    # name
    "no name": ({"name": GONE}, "'name' is missing"),
    "empty name": ({"name": ""}, "'name' is empty"),
    "name with a slash": ({"name": "my/jokes"}, "'name' must be", "'my/jokes'"),
    "name with a dot first": ({"name": "..jokes"}, "'name' must be", "'..jokes'"),
    "name of two lines": ({"name": "jo\nkes"}, "'name' must be", r"'jo\nkes'"),
    "long name": ({"name": "j" * 65}, "'name' must be at most 64"),
    "number as name": ({"name": 7}, "'name' must be text, not 7"),
    "name of a task": ({"name": "rte"}, "'name' is 'rte', which is a task"),
    "name of a group": ({"name": "large"}, "'name' is 'large', which is a task, task group"),
    "name of a method": ({"name": "pt"}, "'name' is 'pt', which is a task, task group, method"),
    # text
    "no text": ({"text": GONE}, "'text' is missing"),
    "empty text": ({"text": []}, "'text' is empty"),
    "text as a word": ({"text": "body"}, "'text' must be a list, not 'body'"),
    "text as a mapping": ({"text": {"joke": "body"}}, "'text' must be a list"),
    "two keys in one": (
        {"text": [{"a": "title", "b": "body"}]},
        "text: {'a': 'title', 'b': 'body'} is neither a column nor",
    ),
    "a number in text": ({"text": ["body", 3]}, "text: 3 is neither a column nor {key: column}"),
    "a number as column": ({"text": [{"joke": 3}]}, "text: {'joke': 3} is neither"),
    "an empty column": ({"text": [""]}, "text: '' is neither"),
    # what excludes what
    "files and hub": ({"hub": {"id": "someone/jokes"}}, "either 'files' or 'hub' is needed, not both"),
    "neither files nor hub": ({"files": GONE}, "either 'files' or 'hub' is needed\n"),
    "labels and target": ({"target": "body"}, "either 'labels' or 'target' is needed, not both"),
    "neither labels nor target": ({"label": GONE, "labels": GONE}, "either 'labels' or 'target' is needed\n"),
    "label without labels": ({"labels": GONE, "target": "body"}, "'label' names the column", "'labels' must list"),
    # labels
    "one label": ({"labels": ["dull"]}, "'labels' must be at least two different words", "['dull']"),
    "no labels": ({"labels": []}, "'labels' is empty"),
    "labels as a word": ({"labels": "dull"}, "'labels' must be a list or a mapping, not 'dull'"),
    "equal labels": ({"labels": ["dull", "dull"]}, "'labels' must be", "['dull', 'dull']"),
    "words that YAML takes for booleans": (
        f"name: jokes\nfiles: {BASE['files']}\ntext: [body]\nlabels: [yes, no]\n",
        "'labels' must be at",
        "[True, False]",
        "quote",
    ),
    "mapped booleans": ({"labels": {False: 0, True: 1}}, "'labels' must be", "[False, True]", "quote"),
    "numbers as labels": ({"labels": [0, 1]}, "'labels' must be", "[0, 1]", "quote"),
    "an empty label": ({"labels": ["dull", ""]}, "'labels' must be", "['dull', '']"),
    "a blank beside a label": ({"labels": ["dull", " funny"]}, "'labels' must be", "blanks", "' funny'"),
    "equal values": ({"labels": {"dull": 1, "funny": 1}}, "'labels' must be mapped to different", "[1, 1]"),
    "equal values in a csv": (
        {"labels": {"dull": 1, "funny": "1"}},
        "'labels' must be mapped to different",
        "[1, '1']",
    ),
    "0 and false": ({"labels": {"dull": 0, "funny": False}}, "'labels' must be mapped to different", "[0, False]"),
    "floats as values": (
        {"labels": {"dull": 0.5, "funny": 1.5}},
        "'labels' must be mapped",
        "whole numbers",
        "[0.5, 1.5]",
    ),
    "lists as values": ({"labels": {"dull": [0], "funny": [1]}}, "'labels' must be mapped", "[[0], [1]]"),
    # split, splits, files
    "unknown split": ({"split": "halve_validate"}, "'split' is 'halve_validate'; did you mean 'halve_validation'?"),
    "two files for three splits": (
        {"files": files("csv", "train", "test")},
        "'files' has train, test, but split 'native' reads train, validation, test",
        "carve_1000 reads train, test",
    ),
    "three files for two": (
        {"split": "carve_1000"},
        "'files' has train, validation, test, but",
        "'carve_1000' reads train, test",
    ),
    "the other two files": (
        {"split": "halve_validation", "files": files("csv", "train", "test")},
        "'files' has train, test, but split 'halve_validation' reads train, validation",
    ),
    "a file that is not read": (
        {"splits": ["train", "validation", "validation"]},
        "'files' has train, validation, test, but",
    ),
    "other names": (
        {"files": files("csv", "exam", "tune", "learn")},
        "'files' has exam, tune, learn, but",
        "'splits' gives",
    ),
    "too few splits": ({"splits": ["train", "test"]}, "'splits' must be 3 names", "['train', 'test']"),
    "a number in splits": ({"splits": ["train", "validation", 3]}, "'splits' must be 3 names"),
    "no splits": ({"splits": []}, "'splits' is empty"),
    "a hub with too many splits": (
        {"files": GONE, "hub": {"id": "a/b"}, "split": "carve_1000", "splits": ["train", "validation", "test"]},
        "'splits' must be 2 names, in the order of train, test (split: carve_1000)",
    ),
    "no files": ({"files": {}}, "'files' is empty"),
    "files as a list": ({"files": ["train.csv"]}, "'files' must be a mapping, not ['train.csv']"),
    "a file that is not there": (
        {"files": {**BASE["files"], "test": "tset.csv"}},
        "files: test is not there",
        "tset.csv",
    ),
    "a folder as file": ({"files": {**BASE["files"], "test": "folder.csv"}}, "files: test is not there", "folder.csv"),
    "another ending": (
        {"files": {**BASE["files"], "test": "test.txt"}},
        "files: test is 'test.txt', which must end in .parquet, .jsonl or .csv",
    ),
    "no file name": ({"files": {**BASE["files"], "test": None}}, "files: test is 'None', which must end in"),
    # hub
    "hub as a word": ({"files": GONE, "hub": "someone/jokes"}, "'hub' must be a mapping, not 'someone/jokes'"),
    "no id": ({"files": GONE, "hub": {"config": "x"}}, "hub: 'id' is missing"),
    "unknown key of the hub": (
        {"files": GONE, "hub": {"id": "a/b", "subset": "x"}},
        "hub: unknown key 'subset'; known: config",
    ),
    "a revision": (
        {"files": GONE, "hub": {"id": "a/b", "revision": 1234567}},
        "hub: 'revision' must be text, not 1234567",
        "quote",
    ),
    "list as id": ({"files": GONE, "hub": {"id": ["a/b"]}}, "hub: 'id' must be text, not ['a/b']"),
    # metrics, report
    "unknown metric": (
        {"metrics": ["acuracy"]},
        "'metrics': 'acuracy' is not for this task",
        "did you mean 'accuracy'?",
    ),
    "no metric": ({"metrics": []}, "'metrics' is empty"),
    "metrics as a word": ({"metrics": "accuracy"}, "'metrics' must be a list, not 'accuracy'"),
    "a list in metrics": ({"metrics": [["accuracy"]]}, "'metrics': ['accuracy'] is not for this task"),
    "f1 of three classes": (
        {"labels": ["a", "b", "c"], "metrics": ["f1"]},
        "'f1' is for two classes, and labels has 3; f1_macro",
    ),
    "matthews of three classes": (
        {"labels": ["a", "b", "c"], "metrics": ["matthews"]},
        "'metrics': 'matthews' is for two classes",
    ),
    "matthews of free text": (free(metrics=["matthews"]), "'metrics': 'matthews' is not for this task"),
    "f1 of free text": (
        free(metrics=["f1"]),
        "'metrics': 'f1' is not for this task; known: accuracy, exact_match, final_number, pearson",
    ),
    "programs": (free(metrics=["pass@1"]), "'metrics': 'pass@1' is not for this task"),
    "another report": ({"report": "f1"}, "'report' is 'f1', which is none of its metrics: accuracy"),
    # numbers and texts
    "length as text": ({"max_source_len": "256"}, "'max_source_len' must be a whole number, not '256'"),
    "length of zero": ({"max_source_len": 0}, "'max_source_len' must be at least 1, not 0"),
    "negative length": ({"max_source_len": -5}, "'max_source_len' must be at least 1, not -5"),
    "length as a fraction": ({"max_source_len": 25.5}, "'max_source_len' must be a whole number, not 25.5"),
    "length as a boolean": ({"max_source_len": True}, "'max_source_len' must be a whole number, not True"),
    "number as cue": ({"cue": 3}, "'cue' must be text, not 3"),
    "boolean as target": ({"label": GONE, "labels": GONE, "target": True}, "'target' must be text, not True"),
    "number as label": ({"label": 3}, "'label' must be text, not 3"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_a_bad_task_file_is_one_line(write_task, train_task_file, tmp_path, case):
    content, *named = BAD_YAML[case]
    path = write_task()
    (tmp_path / "folder.csv").mkdir()
    if isinstance(content, dict):
        content = yaml.safe_dump(
            {key: value for key, value in {**BASE, **content}.items() if value is not GONE}, sort_keys=False
        )
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(train_task_file(path), tmp_path, str(path), *named)


def test_a_task_file_that_is_missing_or_a_folder_is_one_line(train_task_file, tmp_path):
    (tmp_path / "folder").mkdir()
    for name, why in (("missing.yaml", "No such file"), ("folder", "Is a directory")):
        refused(train_task_file(tmp_path / name), tmp_path, f"cannot read {tmp_path / name}", why)
