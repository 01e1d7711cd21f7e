"""Text, targets and split sizes of every task."""

import dataclasses

import pytest
from conftest import fixture_rows

from adept.config import UserError, resolve
from adept.data import load_data
from adept.tasks import TASKS

GOLDEN = {
    "rte": ("sentence1: The ferry to Hallig leaves at noon and takes an hour. sentence2: The ferry takes an hour.", "0", "entailment"),
    "mrpc": (
        "sentence1: The council approved the plan on Monday . sentence2: On Monday , the plan was approved by the council .",
        "1",
        "equivalent",
    ),
    "cola": ("sentence: The gardener watered the roses.", "1", "acceptable"),
    "sst2": ("sentence: a warm and funny little film ", "1", "positive"),
    "cb": ("premise: I don't think the train will be late. It never is. hypothesis: the train will be late", "1", "contradiction"),
    "boolq": (
        "question: is the moon smaller than the earth passage: The Moon's diameter is about a quarter of the Earth's.",
        "1",
        "True",
    ),
    "wic": ("sentence1: She sat on the bank of the river. sentence2: He keeps his money in a bank. word: bank", "0", "False"),
    "movie_reviews": ("review: A patient, lovely film.", "1", "positive"),
    "stsb": ("sentence1: A man is playing a flute. sentence2: A man plays the flute.", "4.8", "4.8"),
}


@pytest.mark.parametrize("name", TASKS)
def test_text_and_targets_of_the_first_fixture_row(name):
    task, row = TASKS[name], fixture_rows(name)[0]
    source, digit, word = GOLDEN[name]
    for targets, expected in (("digits", digit), ("words", word)):
        config = resolve({"task": name, "targets": targets})
        assert task.source(row, config) == source
        assert task.answer(row, config)[0] == expected


@pytest.mark.parametrize(
    ("score", "paper", "official"),
    [(4.75, ("4.8", ("4.75",)), ("4.8", ("4.8",))), (0.3, ("0.4", ("0.3",)), ("0.3", ("0.3",))), (5, ("5.0", ("5.0",)), ("5.0", ("5.0",)))],
)
def test_stsb_under_both_protocols(score, paper, official):
    row = {"sentence1": "a", "sentence2": "b", "label": score}
    assert TASKS["stsb"].answer(row, resolve({"task": "stsb"})) == paper
    assert TASKS["stsb"].answer(row, resolve({"task": "stsb", "protocol": "official"})) == official


@pytest.mark.parametrize("name", ["rte", "cola", "sst2", "mrpc", "stsb", "cb", "wic"])
def test_sizes_are_the_papers_and_splits_are_disjoint(name, shared):
    config = resolve({"task": name, "data_dir": str(shared / "data")})
    data = load_data(TASKS[name], config)
    assert tuple(data.sizes.values()) == TASKS[name].sizes
    ids = [example.id for part in (data.train, data.validation, data.test) for example in part]
    assert len(set(ids)) == len(ids) == sum(TASKS[name].sizes)
    assert all(example.source and example.target for example in data.train)


def test_the_split_follows_the_released_codes_permutation(shared):
    """First half of torch.randperm(277, seed 42) validates: rows read off that permutation."""
    data = load_data(TASKS["rte"], resolve({"task": "rte", "data_dir": str(shared / "data")}))
    assert [e.id for e in data.validation[:4]] == ["validation:207", "validation:84", "validation:253", "validation:243"]
    other = load_data(TASKS["rte"], resolve({"task": "rte", "data_dir": str(shared / "data"), "split_seed": 1}))
    assert other.fingerprint != data.fingerprint


def test_a_label_outside_the_list_and_a_missing_column_name_the_row(tmp_path):
    folder = tmp_path / "rte"
    folder.mkdir()
    good = '{"sentence1": "a", "sentence2": "b", "label": 0}\n'
    (folder / "validation.jsonl").write_text(good * 4)
    config = resolve({"task": "rte", "data_dir": str(tmp_path)})
    for bad, message in (
        ('{"sentence1": "a", "sentence2": "b", "label": 2}', r"rte/train \(local\), row 1: label 2 is not one of 0\.\.1"),
        ('{"sentence1": "a", "sentence2": "b", "label": null}', r"row 1: label None"),
        ('{"sentence1": "a", "label": 0}', r"row 1: task 'rte' needs the column 'sentence2'; found sentence1, label"),
        ("{oops", r"train\.jsonl, line 2: not JSON"),
        ("[1]", r"row 1: not a row but \[1\]"),
    ):
        (folder / "train.jsonl").write_text(good + bad + "\n")
        with pytest.raises(UserError, match=message):
            load_data(TASKS["rte"], config)
    (folder / "train.jsonl").write_text("")
    with pytest.raises(UserError, match=r"rte/train \(local\): no rows"):
        load_data(TASKS["rte"], config)
    (folder / "train.parquet").write_bytes(b"PAR1 not a parquet file")
    with pytest.raises(UserError, match=r"cannot read .*train\.parquet"):
        load_data(TASKS["rte"], config)


def test_a_new_task_is_one_row(tmp_path, monkeypatch, make_config):
    """The README's promise: one Task row, and the one command trains on it."""
    import json

    from adept.loop import run
    from adept.tasks import Split, Task

    row = Task("jokes", ("someone/jokes", None), ("joke",), ("dull", "funny"), split=Split.NATIVE, splits=("train", "validation", "test"))
    monkeypatch.setitem(TASKS, "jokes", row)
    (tmp_path / "jokes").mkdir()
    for split in row.splits:
        lines = [json.dumps({"joke": f"knock {i}", "label": i % 2}) for i in range(12)]
        (tmp_path / "jokes" / f"{split}.jsonl").write_text("\n".join(lines))
    record = run(make_config("t5", "adept", task="jokes", data_dir=str(tmp_path)))
    assert record["sizes"] == {"train": 12, "validation": 12, "test": 12}
    assert dataclasses.asdict(row)["name"] in record["run_id"]
