"""A task of the user's own: what it becomes, and whole runs on it."""

import json
import shutil

import pytest
import yaml
from task_files import GONE, files, free, joke_rows, loaded, refused, write_rows

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.config.run import RunConfig, task_of
from adept.data.dataset import load_data
from adept.serving.load import load
from adept.tasks.custom import read_task
from adept.training.session import open_session

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
        assert text == f"title: T0 joke: knock 0\n{cue} dull</s>"


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
def test_a_task_file_trains_and_its_adapter_answers(
    write_task, train_task_file, tmp_path, family, values, changes, flags
):
    path = write_task(values, **changes)
    code, out, err = train_task_file(path, family, **flags)
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

    code, again, err = train_task_file(path, family, **flags)
    assert (code, again) == (0, out)
    assert err == f"already done: {file}\n"

    session = load(record["run_id"], results_dir=str(tmp_path / "results"))
    sources = [example.source for example in load_data(session.task, session.config).test]
    assert session.answer(sources) == [line["prediction"] for line in predictions]
    if flags.get("scoring") == "likelihood":
        assert {line["prediction"] for line in predictions} <= set(session.task.labels)


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


def test_task_beside_task_file_must_be_its_name(write_task, train_task_file, tmp_path):
    path = write_task()
    assert resolve({"task_file": str(path), "task": "jokes"}) == resolve({"task_file": str(path)})
    refused(train_task_file(path, task="rte"), tmp_path, "--task rte", "task.yaml", "'jokes'", "are two tasks")
    settings = tmp_path / "settings.yaml"
    settings.write_text("task: rte\n")
    refused(train_task_file(path, config=settings), tmp_path, "rte", "task.yaml", "are two tasks")
    settings.write_text(yaml.safe_dump({"task_file": str(path)}))
    assert resolve({}, str(settings)).task == "jokes"


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


def test_an_adapter_answers_where_its_training_data_is_not(write_task, train_task_file, tmp_path):
    path = write_task()
    run_id = train_task_file(path)[1].split()[0]
    (tmp_path / "train.csv").unlink()
    session = load(run_id, results_dir=str(tmp_path / "results"))
    assert len(session.answer(["title: T joke: knock"])) == 1
    code, _, err = train_task_file(path, seed=1)
    assert (code, err) == (2, f"error: task file {path}: files: train is not there: {tmp_path / 'train.csv'}\n")
