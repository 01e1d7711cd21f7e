"""A row that does not fit its task is one line that names it."""

import json

import pytest
from rendering import config_of

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.config.run import task_of
from adept.data.dataset import load_data
from adept.data.sources import load_rows
from adept.models.tiny import fixture_rows
from adept.tasks import TASKS


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rte", {"sentence1": None}, r"column 'sentence1' holds None where text is needed"),
        ("rte", {"sentence2": ["a"]}, r"column 'sentence2' holds \['a'\] where text is needed"),
        ("rte", {"sentence2": {"a": 1}}, r"column 'sentence2' holds \{'a': 1\} where text is needed"),
        ("rte", {"label": "1"}, r"label '1' is not one of 0\.\.1"),
        ("rte", {"label": [1]}, r"label \[1\] is not one of 0\.\.1"),
        ("rte", {"label": -1}, r"label -1 is not one of 0\.\.1"),
        ("rte", {"label": True}, r"label True is not one of 0\.\.1"),
        ("mnli", {"label": 3}, r"label 3 is not one of 0\.\.2"),
        ("winogrande", {"answer": 1}, r"answer 1 is not one of '1', '2'"),
        ("winogrande", {"answer": ""}, r"answer '' is not one of '1', '2'"),
        ("scitail", {"gold_label": 0}, r"gold_label 0 is not one of 'entailment', 'neutral'"),
        ("scitail", {"gold_label": "contradiction"}, r"gold_label 'contradiction' is not one of"),
        ("stsb", {"label": None}, r".+"),
        ("stsb", {"label": "high"}, r".*'high'"),
        ("stsb", {"label": float("nan")}, r"label nan is no similarity"),
        ("nq", {"answers": []}, r"column 'answers' holds \[\] where a list of texts is needed"),
        ("nq", {"answers": "Oslo"}, r"column 'answers' holds 'Oslo' where a list of texts is needed"),
        ("nq", {"answers": [1921]}, r"column 'answers' holds \[1921\] where a list of texts is needed"),
        ("nq", {"answers": None}, r"column 'answers' holds None where a list of texts is needed"),
        ("nq", {"context": None}, r"column 'context' holds None where text is needed"),
        ("record", {"answers": []}, r"column 'answers' holds \[\] where a list of texts is needed"),
        ("record", {"entities": "Ida"}, r"column 'entities' holds 'Ida' where a list of texts is needed"),
        ("record", {"idx": 7}, r".+"),
        ("multirc", {"answer": None}, r"column 'answer' holds None where text is needed"),
        ("multirc", {"idx": None}, r".+"),
        ("wsc", {"span1_text": None}, r"column 'span1_text' holds None where text is needed"),
        ("wsc", {"span2_index": None}, r".+"),
        ("mbpp", {"canonical_solution": None}, r"column 'canonical_solution' holds None where text is needed"),
    ],
)
def test_a_row_that_does_not_fit_is_one_line_naming_it(name, changes, message, tmp_path):
    (tmp_path / name).mkdir()
    for split in TASKS[name].splits:
        rows = [fixture_rows(name)[0]] * 3
        rows[1] = {**rows[1], **changes} if split == TASKS[name].splits[0] else rows[1]
        (tmp_path / name / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    config = config_of(name, data_dir=str(tmp_path))
    with pytest.raises(UserError, match=rf"{TASKS[name].splits[0]}\.jsonl, row 1: {message}") as caught:
        load_data(task_of(config), config)
    assert "\n" not in str(caught.value)


def test_a_row_may_hold_every_line_separator_but_the_newline(tmp_path):
    """JSON allows them raw; hub texts hold them."""
    (tmp_path / "rte").mkdir()
    row = {"sentence1": "one\u2028two\x85three", "sentence2": "b", "label": 0}
    (tmp_path / "rte" / "train.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_rows(TASKS["rte"], "train", resolve({"task": "rte", "data_dir": str(tmp_path)}))[0] == [row]


def test_a_label_outside_the_list_and_a_missing_column_name_the_row(tmp_path):
    folder = tmp_path / "rte"
    folder.mkdir()
    good = '{"sentence1": "a", "sentence2": "b", "label": 0}\n'
    (folder / "validation.jsonl").write_text(good * 4)
    config = resolve({"task": "rte", "data_dir": str(tmp_path)})
    for bad, message in (
        ('{"sentence1": "a", "sentence2": "b", "label": 2}', r"train\.jsonl, row 1: label 2 is not one of 0\.\.1"),
        ('{"sentence1": "a", "sentence2": "b", "label": null}', r"row 1: label None"),
        ('{"sentence1": "a", "label": 0}', r"row 1: task 'rte' needs the column 'sentence2'; found sentence1, label"),
        ("{oops", r"train\.jsonl, line 2: not JSON"),
        ("[1]", r"row 1: not a row but \[1\]"),
    ):
        (folder / "train.jsonl").write_text(good + bad + "\n")
        with pytest.raises(UserError, match=message):
            load_data(TASKS["rte"], config)
    (folder / "train.jsonl").write_text("")
    with pytest.raises(UserError, match=r"train\.jsonl: no rows"):
        load_data(TASKS["rte"], config)
    (folder / "train.parquet").write_bytes(b"PAR1 not a parquet file")
    with pytest.raises(UserError, match=r"cannot read .*train\.parquet"):
        load_data(TASKS["rte"], config)
