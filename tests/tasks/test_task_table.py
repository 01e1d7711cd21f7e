"""The table of tasks: names, groups, and what it takes to add a task."""

import dataclasses
import json

import pytest

from adept.base.errors import UserError
from adept.tasks import GROUPS, TASKS, find_task, task_names
from adept.tasks.task import Split, Task
from adept.training.loop import run


def test_groups_are_the_papers():
    glue = ("mnli", "qqp", "qnli", "sst2", "stsb", "mrpc", "rte", "cola")
    superglue = ("multirc", "boolq", "wic", "wsc", "cb", "record")
    mrqa, other = ("nq", "hotpotqa", "searchqa", "newsqa"), ("winogrande", "yelp_polarity", "scitail", "paws")
    for group, names in (
        ("glue", glue),
        ("superglue", superglue),
        ("mrqa", mrqa),
        ("other", other),
        ("code", ("mbpp",)),
    ):
        assert task_names(f"@{group}") == names
    assert set(task_names("@all")) == {*glue, *superglue, *mrqa, *other, "mbpp"} and len(task_names("@all")) == 23
    assert set(task_names("@large")) == {"mnli", "qqp", "qnli", "yelp_polarity", "record", *mrqa}
    assert all((TASKS[name].sizes[0] > 70_000) == (name in GROUPS["large"]) for name in task_names("@all"))
    assert task_names("rte") == ("rte",)


@pytest.mark.parametrize(
    ("look_up", "name", "message"),
    [
        (find_task, "rt", "unknown task 'rt'; did you mean 'rte'?"),
        (find_task, "superglue", "unknown task 'superglue'; did you mean '@superglue'?"),
        (task_names, "@gleu", "unknown task group '@gleu'; did you mean '@glue'?"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(look_up, name, message):
    with pytest.raises(UserError) as caught:
        look_up(name)
    assert str(caught.value) == message


def test_a_task_is_found_by_its_name_and_a_group_of_no_likeness_lists_all():
    assert find_task("wsc") is TASKS["wsc"]
    with pytest.raises(
        UserError,
        match=r"unknown task group '@zzzzzzzz'; known: @all, @code, @glue, @large, @mrqa, @other, @superglue$",
    ):
        task_names("@zzzzzzzz")


def test_a_new_task_is_one_row(tmp_path, monkeypatch, make_config):
    """The README's promise: one Task row, and the one command trains on it."""

    row = Task(
        "jokes",
        ("someone/jokes", None),
        ("joke",),
        ("dull", "funny"),
        split=Split.NATIVE,
        splits=("train", "validation", "test"),
    )
    monkeypatch.setitem(TASKS, "jokes", row)
    (tmp_path / "jokes").mkdir()
    for split in row.splits:
        lines = [json.dumps({"joke": f"knock {i}", "label": i % 2}) for i in range(12)]
        (tmp_path / "jokes" / f"{split}.jsonl").write_text("\n".join(lines))
    record = run(make_config("t5", "adept", task="jokes", data_dir=str(tmp_path)))
    assert record["sizes"] == {"train": 12, "validation": 12, "test": 12}
    assert dataclasses.asdict(row)["name"] in record["run_id"]
