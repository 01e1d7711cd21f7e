"""A task of the user's own: good files to the last string, whole runs, and the one line that each bad file gets."""

import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from conftest import SIZES

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.config.run import RunConfig, task_of
from adept.data.dataset import load_data
from adept.serving.load import load
from adept.tasks.custom import read_task
from adept.training.session import open_session
from train import main

BASE = {
    "name": "jokes",
    "files": {"train": "train.csv", "validation": "validation.csv", "test": "test.csv"},
    "text": ["title", {"joke": "body"}],
    "label": "funny",
    "labels": ["dull", "funny"],
}
GONE = object()
"""In place of a value: the key is left out."""

TINY = {"device": "cpu", "steps": 4, "eval_every": 2, "batch_size": 4, "max_source_len": 64, "log_every": 2}


def free(**more) -> dict:
    """What turns BASE into a task of free text."""
    return {"label": GONE, "labels": GONE, "target": "funny", **more}


def files(suffix: str, *splits: str) -> dict:
    return {split: f"{split}.{suffix}" for split in splits or ("train", "validation", "test")}


def joke_rows(values: list, count: int = 12) -> list[dict]:
    return [{"title": f"T{i}", "body": f"knock {i}", "funny": values[i % len(values)]} for i in range(count)]


def write_rows(path, rows: list[dict]) -> None:
    match path.suffix:
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        case ".csv":
            lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def write_task(tmp_path):
    """write_task(values, rows=12, **changes of BASE) -> path of a task file with its data beside it."""

    def write(values=(0, 1), rows: int = 12, **changes):
        content = {key: value for key, value in {**BASE, **changes}.items() if value is not GONE}
        for name in content.get("files", {}).values():
            write_rows(tmp_path / name, joke_rows(list(values), rows))
        path = tmp_path / "task.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def train(model_folders, tmp_path, capsys):
    """train(task_file, family, **flags) -> (exit code, stdout, stderr) of train.py; what it writes lies in results/."""

    def run(path, family: str = "t5", **flags):
        fields = {
            "task_file": path,
            "model": model_folders[family],
            "results_dir": tmp_path / "results",
            **TINY,
            **SIZES["adept"],
            **flags,
        }
        capsys.readouterr()
        code = main([word for name, value in fields.items() for word in (f"--{name}", str(value))])
        return code, *capsys.readouterr()

    return run


def refused(result, folder, *named: str) -> None:
    """Exit code 2, one line that holds all of `named`, and nothing written."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    for part in named:
        assert part in err
    assert not (folder / "results").exists()


def loaded(path, **flags):
    config = resolve({"task_file": str(path), **flags})
    return load_data(task_of(config), config)


# Good files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (["dull", "funny"], (0, 1)),
        ({"dull": 1, "funny": 0}, (1, 0)),
        ({"dull": -1, "funny": 5}, (-1, 5)),
        ({"dull": "d", "funny": "f f"}, ("d", "f f")),
        ({"dull": "0", "funny": "1"}, ("0", "1")),  # a .csv cannot tell them from numbers
    ],
    ids=str,
)
def test_labels_are_the_same_from_every_kind_of_file(write_task, suffix, labels, values):
    path = write_task(values, files=files(suffix), labels=labels)
    for targets, first, second in (("digits", "0", "1"), ("words", "dull", "funny")):
        data = loaded(path, targets=targets)
        assert data.sizes == {"train": 12, "validation": 12, "test": 12}
        example = data.train[0]
        assert (example.id, example.source) == ("train:0", "title: T0 joke: knock 0")
        assert (example.target, example.references) == (first, (first,))
        assert (data.test[1].target, data.test[1].references) == (second, (second,))


@pytest.mark.parametrize(
    ("suffix", "value", "answers"),
    [
        ("csv", "in Rome", ("in Rome",)),
        ("csv", 1984, ("1984",)),
        ("csv", 2.5, ("2.5",)),
        ("jsonl", " in Rome\n", ("in Rome",)),  # predictions come without blanks around them
        ("jsonl", ["in Rome", "Rome"], ("in Rome", "Rome")),
        ("jsonl", 1984, ("1984",)),
        ("parquet", "Zürich", ("Zürich",)),
        ("parquet", ["in Rome", "Rome", "the city"], ("in Rome", "Rome", "the city")),
    ],
    ids=str,
)
def test_the_first_answer_is_learned_and_any_is_right(write_task, suffix, value, answers):
    path = write_task([value], files=files(suffix), **free(text=["body"]))
    example = loaded(path).train[2]
    assert (example.source, example.target, example.references) == ("body: knock 2", answers[0], answers)


def test_a_file_of_three_formats_with_windows_line_ends(write_task, tmp_path):
    path = write_task(files={"train": "a.csv", "validation": "b.jsonl", "test": "c.parquet"})
    expected = loaded(path).fingerprint
    for name in ("a.csv", "b.jsonl", "task.yaml"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes().replace(b"\n", b"\r\n"))
    assert loaded(path).fingerprint == expected


def test_a_csv_cell_holds_commas_quotes_and_lines(write_task, tmp_path):
    path = write_task()
    (tmp_path / "train.csv").write_text('title,body,funny\n"a, ""b""","one\ntwo",1\n', encoding="utf-8")
    assert loaded(path).train[0].source == 'title: a, "b" joke: one\ntwo'


@pytest.mark.parametrize(
    ("changes", "rows", "sizes"),
    [
        ({}, 12, (12, 12, 12)),
        ({"split": "native"}, 12, (12, 12, 12)),
        ({"files": files("csv", "test", "validation", "train")}, 12, (12, 12, 12)),
        ({"files": files("csv", "learn", "tune", "exam"), "splits": ["learn", "tune", "exam"]}, 12, (12, 12, 12)),
        ({"split": "halve_validation", "files": files("csv", "validation", "train")}, 12, (12, 6, 6)),
        ({"split": "carve_1000", "files": files("csv", "train", "test")}, 1010, (10, 1000, 1010)),
    ],
    ids=str,
)
def test_split_rules(write_task, changes, rows, sizes):
    data = loaded(write_task(rows=rows, **changes))
    parts = (data.train, data.validation, data.test)
    assert tuple(data.sizes.values()) == sizes
    ids = [example.id for part in parts for example in part]
    assert len(set(ids)) == len(ids)
    named = changes.get("splits", ("train", "validation", "test"))
    if changes.get("split", "native") == "native":
        assert tuple(part[0].id for part in parts) == tuple(f"{name}:0" for name in named)
    else:
        assert {example.id.split(":")[0] for example in data.train} == {"train"}


def test_the_order_of_splits_decides_and_not_that_of_the_files(write_task):
    data = loaded(write_task(splits=["test", "validation", "train"]))
    assert (data.train[0].id, data.test[0].id) == ("test:0", "train:0")


def test_a_hub_task_reads_data_dir(write_task, tmp_path):
    hub = {"id": "someone/jokes", "config": "short", "revision": "abc123"}
    path = write_task(files=GONE, hub=hub, split="halve_validation", splits=["train", "dev"])
    (tmp_path / "data" / "jokes").mkdir(parents=True)
    for split in ("train", "dev"):
        write_rows(tmp_path / "data" / "jokes" / f"{split}.jsonl", joke_rows([0, 1]))
    data = loaded(path, data_dir=str(tmp_path / "data"))
    assert (data.origin, data.sizes) == ("local", {"train": 12, "validation": 6, "test": 6})
    task = read_task(path)
    assert (task.hub, task.revision, task.files) == (("someone/jokes", "short"), "abc123", {})
    assert read_task(write_task(files=GONE, hub={"id": "someone/jokes"})).hub == ("someone/jokes", None)


def test_data_dir_goes_before_the_files(write_task, tmp_path):
    path = write_task()
    (tmp_path / "data" / "jokes").mkdir(parents=True)
    write_rows(tmp_path / "data" / "jokes" / "train.jsonl", joke_rows([1], count=3))
    assert loaded(path, data_dir=str(tmp_path / "data")).sizes == {"train": 3, "validation": 12, "test": 12}


@pytest.mark.parametrize(
    ("changes", "metrics", "reported"),
    [
        ({}, ("accuracy",), "accuracy"),
        ({"metrics": ["f1", "accuracy"], "report": "accuracy"}, ("f1", "accuracy"), "accuracy"),
        ({"metrics": ["matthews"]}, ("matthews",), "matthews"),
        ({"metrics": ["f1_macro"], "labels": ["a", "b", "c"]}, ("f1_macro",), "f1_macro"),
        (free(), ("exact_match", "squad_f1"), "exact_match"),
        (free(metrics=["squad_f1", "exact_match"]), ("squad_f1", "exact_match"), "squad_f1"),
        (free(metrics=["pearson", "spearman"], report="spearman"), ("pearson", "spearman"), "spearman"),
    ],
    ids=["labels", "two classes", "matthews", "three classes", "text", "text of two metrics", "numbers"],
)
def test_metrics_and_report(write_task, changes, metrics, reported):
    path = write_task(**changes)
    config = resolve({"task_file": str(path)})
    task = task_of(config)
    assert (task.metrics, task.reported, config.select_on) == (metrics, reported, metrics[0])
    with pytest.raises(UserError, match="--select_on 'question_em' is not a metric of jokes"):
        resolve({"task_file": str(path), "select_on": "question_em"})


def test_max_source_len_is_the_files_unless_a_flag_says_otherwise(write_task):
    path = str(write_task(max_source_len=77))
    assert resolve({"task_file": path}).max_source_len == 77
    assert resolve({"task_file": path, "max_source_len": 9}).max_source_len == 9
    assert resolve({"task_file": str(write_task())}).max_source_len == 256


def test_the_cue_stands_before_a_decoder_only_models_answer(write_task, make_config):
    for changes, cue in (({"cue": "funny or dull?"}, "funny or dull?"), ({}, "answer:")):
        config = make_config("llama", "adept", task_file=str(write_task(**changes)), task="jokes")
        session = open_session(config)
        example = session.codec.encode(load_data(session.task, config).train)[0]
        text = session.codec.tokenizer.decode(example.source_ids + example.target_ids)
        assert text == f"title: T0 joke: knock 0\n{cue} 0</s>"


# Whole runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "values", "changes", "flags"),
    [
        ("t5", (0, 1), {"metrics": ["accuracy", "f1"]}, {}),
        ("t5", ("red", "blue"), {**free(metrics=["squad_f1"]), "files": files("jsonl")}, {}),
        ("t5", ("d", "f"), {"labels": {"dull": "d", "funny": "f"}}, {"targets": "words", "scoring": "likelihood"}),
        ("llama", (0, 1), {"files": files("parquet"), "cue": "funny:"}, {"scoring": "likelihood"}),
        ("llama", (["red", "rot"],), {**free(), "files": files("parquet")}, {}),
    ],
    ids=["t5 labels csv", "t5 text jsonl", "t5 words likelihood", "llama labels parquet", "llama answers parquet"],
)
def test_a_task_file_trains_and_its_adapter_answers(write_task, train, tmp_path, family, values, changes, flags):
    path = write_task(values, **changes)
    code, out, err = train(path, family, **flags)
    assert code == 0, err
    (file,) = (tmp_path / "results" / "runs").glob("*.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    task = read_task(path)
    assert out.startswith(record["run_id"])
    assert record["run_id"].startswith(f"tiny-{family}-jokes-")
    assert record["sizes"] == {"train": 12, "validation": 12, "test": 12}
    assert (record["config"]["task"], record["config"]["task_file"]) == ("jokes", str(path))
    assert tuple(record["test"]) == tuple(record["validation"]) == task.metrics
    assert all(0 <= score <= 100 for score in record["test"].values())
    assert record["provenance"]["data_origin"] == "local"
    predictions = [
        json.loads(line)
        for line in (file.with_suffix("") / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["id"] for line in predictions] == [f"test:{i}" for i in range(12)]

    code, again, err = train(path, family, **flags)
    assert (code, again) == (0, out)
    assert err == f"already done: {file}\n"

    session = load(record["run_id"], results_dir=str(tmp_path / "results"))
    sources = [example.source for example in load_data(session.task, session.config).test]
    assert session.answer(sources) == [line["prediction"] for line in predictions]
    if flags.get("scoring") == "likelihood":
        assert {line["prediction"] for line in predictions} <= set(task.labels)


# Ids ------------------------------------------------------------------------------------------------------------------


def test_the_run_id_follows_what_the_file_says_and_not_where_it_lies(write_task, tmp_path):
    path = write_task()
    (tmp_path / "elsewhere").mkdir()
    for name in ("train.csv", "validation.csv", "test.csv"):
        shutil.copy(tmp_path / name, tmp_path / "elsewhere")
    copy = shutil.copy(path, tmp_path / "elsewhere" / "other.yaml")
    first = resolve({"task_file": str(path)}).run_id
    assert first.startswith("t5-base-jokes-adept-")
    assert resolve({"task_file": str(copy)}).run_id == first
    changed = tmp_path / "changed.yaml"
    changed.write_text(path.read_text(encoding="utf-8").replace("joke: body", "gag: body"), encoding="utf-8")
    assert resolve({"task_file": str(changed)}).run_id != first


def test_the_ids_of_ordinary_tasks_know_nothing_of_the_field():
    config = resolve({"task": "rte", "method": "adept", "prompt_len": 60, "bottleneck": 10})
    assert config.task_file is None
    assert (
        config.run_id
        == RunConfig(**{k: v for k, v in vars(config).items() if k != "task_file"}).run_id
        == "t5-base-rte-adept-f323c60f"
    )


def test_task_beside_task_file_must_be_its_name(write_task, train, tmp_path):
    path = write_task()
    assert resolve({"task_file": str(path), "task": "jokes"}) == resolve({"task_file": str(path)})
    refused(train(path, task="rte"), tmp_path, "--task rte", "task.yaml", "'jokes'", "are two tasks")
    settings = tmp_path / "settings.yaml"
    settings.write_text("task: rte\n")
    refused(train(path, config=settings), tmp_path, "rte", "task.yaml", "are two tasks")
    settings.write_text(yaml.safe_dump({"task_file": str(path)}))
    assert resolve({}, str(settings)).task == "jokes"


# Bad task files -------------------------------------------------------------------------------------------------------

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
    "number as key": ({3: 1}, "unknown key 3"),
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
    "two keys in one": ({"text": [{"a": "title", "b": "body"}]}, "text: {'a': 'title', 'b': 'body'} is neither a column nor"),
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
        f"name: jokes\nfiles: {BASE['files']}\ntext: [body]\nlabels: [yes, no]\n", "'labels' must be at", "[True, False]", "quote",
    ),
    "mapped booleans": ({"labels": {False: 0, True: 1}}, "'labels' must be", "[False, True]", "quote"),
    "numbers as labels": ({"labels": [0, 1]}, "'labels' must be", "[0, 1]", "quote"),
    "an empty label": ({"labels": ["dull", ""]}, "'labels' must be", "['dull', '']"),
    "a blank beside a label": ({"labels": ["dull", " funny"]}, "'labels' must be", "blanks", "' funny'"),
    "equal values": ({"labels": {"dull": 1, "funny": 1}}, "'labels' must be mapped to different", "[1, 1]"),
    "equal values in a csv": ({"labels": {"dull": 1, "funny": "1"}}, "'labels' must be mapped to different", "[1, '1']"),
    "0 and false": ({"labels": {"dull": 0, "funny": False}}, "'labels' must be mapped to different", "[0, False]"),
    "floats as values": ({"labels": {"dull": 0.5, "funny": 1.5}}, "'labels' must be mapped", "whole numbers", "[0.5, 1.5]"),
    "lists as values": ({"labels": {"dull": [0], "funny": [1]}}, "'labels' must be mapped", "[[0], [1]]"),
    # split, splits, files
    "unknown split": ({"split": "halve_validate"}, "'split' is 'halve_validate'; did you mean 'halve_validation'?"),
    "two files for three splits": (
        {"files": files("csv", "train", "test")},
        "'files' has train, test, but split 'native' reads train, validation, test",
        "carve_1000 reads train, test",
    ),
    "three files for two": ({"split": "carve_1000"}, "'files' has train, validation, test, but", "'carve_1000' reads train, test"),
    "the other two files": (
        {"split": "halve_validation", "files": files("csv", "train", "test")},
        "'files' has train, test, but split 'halve_validation' reads train, validation",
    ),
    "a file that is not read": ({"splits": ["train", "validation", "validation"]}, "'files' has train, validation, test, but"),
    "other names": ({"files": files("csv", "exam", "tune", "learn")}, "'files' has exam, tune, learn, but", "'splits' gives"),
    "too few splits": ({"splits": ["train", "test"]}, "'splits' must be 3 names", "['train', 'test']"),
    "a number in splits": ({"splits": ["train", "validation", 3]}, "'splits' must be 3 names"),
    "no splits": ({"splits": []}, "'splits' is empty"),
    "a hub with too many splits": (
        {"files": GONE, "hub": {"id": "a/b"}, "split": "carve_1000", "splits": ["train", "validation", "test"]},
        "'splits' must be 2 names, in the order of train, test (split: carve_1000)",
    ),
    "no files": ({"files": {}}, "'files' is empty"),
    "files as a list": ({"files": ["train.csv"]}, "'files' must be a mapping, not ['train.csv']"),
    "a file that is not there": ({"files": {**BASE["files"], "test": "tset.csv"}}, "files: test is not there", "tset.csv"),
    "a folder as file": ({"files": {**BASE["files"], "test": "folder.csv"}}, "files: test is not there", "folder.csv"),
    "another ending": (
        {"files": {**BASE["files"], "test": "test.txt"}}, "files: test is 'test.txt', which must end in .parquet, .jsonl or .csv",
    ),
    "no file name": ({"files": {**BASE["files"], "test": None}}, "files: test is 'None', which must end in"),
    # hub
    "hub as a word": ({"files": GONE, "hub": "someone/jokes"}, "'hub' must be a mapping, not 'someone/jokes'"),
    "no id": ({"files": GONE, "hub": {"config": "x"}}, "hub: 'id' is missing"),
    "unknown key of the hub": ({"files": GONE, "hub": {"id": "a/b", "subset": "x"}}, "hub: unknown key 'subset'; known: config"),
    "a revision": ({"files": GONE, "hub": {"id": "a/b", "revision": 1234567}}, "hub: 'revision' must be text, not 1234567", "quote"),
    "list as id": ({"files": GONE, "hub": {"id": ["a/b"]}}, "hub: 'id' must be text, not ['a/b']"),
    # metrics, report
    "unknown metric": ({"metrics": ["acuracy"]}, "'metrics': 'acuracy' is not for this task", "did you mean 'accuracy'?"),
    "no metric": ({"metrics": []}, "'metrics' is empty"),
    "metrics as a word": ({"metrics": "accuracy"}, "'metrics' must be a list, not 'accuracy'"),
    "a list in metrics": ({"metrics": [["accuracy"]]}, "'metrics': ['accuracy'] is not for this task"),
    "f1 of three classes": ({"labels": ["a", "b", "c"], "metrics": ["f1"]}, "'f1' is for two classes, and labels has 3; f1_macro"),
    "matthews of three classes": ({"labels": ["a", "b", "c"], "metrics": ["matthews"]}, "'metrics': 'matthews' is for two classes"),
    "matthews of free text": (free(metrics=["matthews"]), "'metrics': 'matthews' is not for this task"),
    "f1 of free text": (free(metrics=["f1"]), "'metrics': 'f1' is not for this task; known: accuracy, exact_match, pearson"),
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
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_YAML)
def test_a_bad_task_file_is_one_line(write_task, train, tmp_path, case):
    content, *named = BAD_YAML[case]
    path = write_task()
    (tmp_path / "folder.csv").mkdir()
    if isinstance(content, dict):
        content = yaml.safe_dump(
            {key: value for key, value in {**BASE, **content}.items() if value is not GONE}, sort_keys=False
        )
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(train(path), tmp_path, str(path), *named)


def test_a_task_file_that_is_missing_or_a_folder_is_one_line(train, tmp_path):
    (tmp_path / "folder").mkdir()
    for name, why in (("missing.yaml", "No such file"), ("folder", "Is a directory")):
        refused(train(tmp_path / name), tmp_path, f"cannot read {tmp_path / name}", why)


# Bad data -------------------------------------------------------------------------------------------------------------

DULL_FUNNY = {"labels": {"dull": "0", "funny": "1"}}
GONE_COLUMN = "task 'jokes' needs the column"
WANTED = "where a text or a list of texts is needed"

BAD_ROWS = {
    # case: (changes of BASE, changes of the row, what the line says of it)
    "no column of the text": ({}, {"body": GONE}, f"{GONE_COLUMN} 'body'; found title, funny"),
    "no label column": ({}, {"funny": GONE}, f"{GONE_COLUMN} 'funny'; found title, body"),
    "no target column": (free(), {"funny": GONE}, f"{GONE_COLUMN} 'funny'; found title, body"),
    "null as text": ({}, {"body": None}, "column 'body' holds None where text is needed"),
    "a list as text": ({}, {"body": ["a", "b"]}, "column 'body' holds ['a', 'b'] where text is needed"),
    "a mapping as text": ({}, {"body": {"en": "a"}}, "column 'body' holds {'en': 'a'} where text is needed"),
    "another label": ({}, {"funny": 2}, "funny 2 is not one of 0..1"),
    "another value": (DULL_FUNNY, {"funny": "x"}, "funny 'x' is not one of '0', '1'"),
    "a text among numbers": ({}, {"funny": "0"}, "funny '0' is not one of 0..1"),
    "a word among numbers": ({}, {"funny": "dull"}, "funny 'dull' is not one of 0..1"),
    "a number among texts": (DULL_FUNNY, {"funny": 0}, "funny 0 is not one of '0', '1'"),
    "a list as label": ({}, {"funny": [0]}, "funny [0] is not one of 0..1"),
    "no label": ({}, {"funny": None}, "funny None is not one of 0..1"),
    "no answers": (free(), {"funny": []}, f"column 'funny' holds [] {WANTED}"),
    "a blank as answer": (free(), {"funny": " "}, f"column 'funny' holds ' ' {WANTED}"),
    "an empty answer in a list": (free(), {"funny": ["a", ""]}, f"column 'funny' holds ['a', ''] {WANTED}"),
    "null as answer": (free(), {"funny": None}, f"column 'funny' holds None {WANTED}"),
    "null in a list": (free(), {"funny": ["a", None]}, f"column 'funny' holds ['a', None] {WANTED}"),
    "a boolean as answer": (free(), {"funny": True}, f"column 'funny' holds True {WANTED}"),
    "not a number as answer": (free(), {"funny": float("nan")}, f"column 'funny' holds nan {WANTED}"),
    "a mapping as answer": (free(), {"funny": {"text": ["a"]}}, f"column 'funny' holds {{'text': ['a']}} {WANTED}"),
    "a list of lists": (free(), {"funny": [["a"]]}, f"column 'funny' holds [['a']] {WANTED}"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_one_line(write_task, train, tmp_path, case):
    changes, cells, message = BAD_ROWS[case]
    path = write_task(["0" if changes is DULL_FUNNY else 0], files=files("jsonl"), **changes)
    bad = {
        key: value for key, value in {"title": "T", "body": "knock", "funny": 0, **cells}.items() if value is not GONE
    }
    for split in ("train", "test"):
        good = joke_rows(["0" if changes is DULL_FUNNY else 0])
        write_rows(tmp_path / f"{split}.jsonl", [*good, bad])
        refused(train(path), tmp_path, f"{tmp_path / split}.jsonl, row 12: {message}\n")
        write_rows(tmp_path / f"{split}.jsonl", good)


LINE = '{"title": "T", "body": "knock", "funny": 0}\n'
HEAD = "title,body,funny\nT,knock,0\n"

BAD_FILES = {
    "an empty jsonl": ("train.jsonl", "", "train.jsonl: no rows"),
    "a truncated jsonl": ("train.jsonl", LINE + LINE + LINE[:20], "train.jsonl, line 3: not JSON"),
    "one JSON document": ("train.jsonl", f"[\n{LINE}]\n", "train.jsonl, line 1: not JSON"),
    "a row that is a list": ("train.jsonl", f"{LINE}[1, 2]\n", "train.jsonl, row 1: not a row but [1, 2]; each line should"),
    "a row that is null": ("train.jsonl", f"{LINE}null\n", "train.jsonl, row 1: not a row but None"),
    "a jsonl in Latin-1": ("train.jsonl", LINE.replace("k", "é").encode("latin-1"), "train.jsonl", "can't decode byte 0xe9"),
    "an empty csv": ("train.csv", "", "train.csv"),
    "a header only": ("train.csv", "title,body,funny\n", "train.csv: no rows"),
    "another column": ("train.csv", "title,funny\nT,0\n", f"train.csv, row 0: {GONE_COLUMN} 'body'; found title, funny"),
    "semicolons": ("train.csv", "title;body;funny\nT;knock;0\n", f"train.csv, row 0: {GONE_COLUMN}", "; found title;body;funny"),
    "another label": ("train.csv", f"{HEAD}T,knock,2\n", "train.csv, row 1: funny '2' is not one of 0..1"),
    "a word as label": ("train.csv", "title,body,funny\nT,knock,dull\n", "train.csv, row 0: funny 'dull' is not one of 0..1"),
    "a comma too many": ("train.csv", f"{HEAD}T,knock, knock,0\n", "train.csv", "3", "4"),
    "a cell too few": ("train.csv", f"{HEAD}T,0\n", "train.csv", "3", "2"),
    "a torn parquet": ("train.parquet", "PAR1 torn PAR1", "cannot read", "train.parquet"),
    "an empty parquet": ("train.parquet", "", "cannot read", "train.parquet"),
    "a jsonl called parquet": ("train.parquet", LINE, "cannot read", "train.parquet"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_data_file_is_one_line(write_task, train, tmp_path, case):
    name, content, *named = BAD_FILES[case]
    path = write_task(files={**files("jsonl"), "train": name})
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(train(path), tmp_path, str(tmp_path), *named)


def test_too_few_rows_to_set_1000_aside_is_one_line(write_task, train, tmp_path):
    path = write_task(split="carve_1000", files=files("csv", "train", "test"))
    refused(train(path), tmp_path, "task 'jokes' sets 1,000 training rows aside for validation, but only 12 are there")


# Texts as they are written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    ["007", "1.10", "1e5", "2026-01-02T10:00:00", "NA", "null", "true", "", " a ", "1,000", "0x10", "-0", "caf\u00e9"],
)
def test_a_csv_cell_is_the_text_that_is_written(write_task, tmp_path, cell):
    path = write_task(text=["body"])
    (tmp_path / "train.csv").write_text(f'title,body,funny\nT,"{cell}",0\n', encoding="utf-8")
    assert loaded(path).train[0].source == f"body: {cell}"


@pytest.mark.parametrize(
    "values", [("true", "false"), ("TRUE", "FALSE"), ("1.0", "2.0"), ("1", "x"), ("01", "02"), ("NA", "null"), (1, 2)]
)
def test_labels_of_a_csv_match_as_they_are_written(write_task, values):
    data = loaded(write_task(values, labels=dict(zip(("dull", "funny"), values, strict=True))))
    assert [example.target for example in data.train[:2]] == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.jsonl", b"\xef\xbb\xbf" + LINE.encode()),
        ("train.jsonl", f"\n{LINE}\n\n".encode()),
        ("train.jsonl", LINE.replace("knock", "a\u2028b\x85c").encode()),
        ("train.csv", b"\xef\xbb\xbf" + HEAD.encode()),
        ("train.csv", HEAD.replace("\n", "\n\n").encode()),
        ("train.csv", HEAD.replace("knock", "knock " * 300_000).encode()),
    ],
    ids=["BOM jsonl", "blank lines jsonl", "U+2028", "BOM csv", "blank lines csv", "long cell"],
)
def test_what_other_programs_write_is_read(write_task, tmp_path, name, content):
    path = write_task(files={**files("jsonl"), "train": name})
    (tmp_path / name).write_bytes(content)
    (example,) = loaded(path).train
    assert example.source.startswith("title: T joke: ")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("train.csv", f"{HEAD}T,knock, knock,0\n", "train.csv, line 3: 4 cells, but the header has 3 columns"),
        ("train.csv", f"{HEAD}T,0\n", "train.csv, line 3: 2 cells, but the header has 3 columns"),
        ("train.csv", "title,body,title,funny\na,b,c,0\n", "train.csv, line 1: the column 'title' is there twice"),
        ("train.csv", f'{HEAD}T,"knock,0\nT,knock,0\n', "train.csv, line 4"),
        ("train.csv", HEAD.replace("k", "é").encode("latin-1"), "train.csv"),
        ("train.jsonl", LINE.encode() + LINE.replace("k", "é").encode("latin-1"), "train.jsonl, line 2"),
        ("train.jsonl", LINE.replace("knock", r"cut \ud83d"), "train.jsonl, row 0"),
        ("train.jsonl", f"{LINE}{'[' * 100_000}\n", "train.jsonl, line 2"),
    ],
    ids=[
        "long row",
        "short row",
        "column twice",
        "open quote",
        "csv in Latin-1",
        "jsonl in Latin-1",
        "half a character",
        "depth",
    ],
)
def test_the_line_of_a_bad_file_is_named(write_task, train, tmp_path, name, content, named):
    path = write_task(files={**files("jsonl"), "train": name})
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(train(path), tmp_path, str(tmp_path), named)


def test_a_date_that_is_none_is_one_line(write_task, train, tmp_path):
    path = write_task()
    path.write_text("name: 2026-13-45\n")
    refused(train(path), tmp_path, f"{path} is not valid YAML")


@pytest.mark.parametrize("flags", [{"scoring": "likelihood"}, {"compare_scoring": "true"}], ids=str)
def test_free_text_has_no_likelihood_and_says_so_before_training(write_task, tmp_path, flags):
    with pytest.raises(UserError, match="needs a task with labels; 'jokes' has free targets"):
        resolve({"task_file": str(write_task(**free())), **flags})


def test_a_file_that_is_edited_while_its_run_trains_does_not_move_the_record(write_task):
    path = write_task()
    config = resolve({"task_file": str(path)})
    before = config.run_id
    path.write_text(path.read_text(encoding="utf-8") + "cue: later\n", encoding="utf-8")
    assert config.run_id == before


def test_an_adapter_answers_where_its_training_data_is_not(write_task, train, tmp_path):
    path = write_task()
    run_id = train(path)[1].split()[0]
    (tmp_path / "train.csv").unlink()
    session = load(run_id, results_dir=str(tmp_path / "results"))
    assert len(session.answer(["title: T joke: knock"])) == 1
    code, _, err = train(path, seed=1)
    assert (code, err) == (2, f"error: task file {path}: files: train is not there: {tmp_path / 'train.csv'}\n")
