"""A trained run answers texts and rows, one or many, with label probabilities on request."""

import shutil

import pytest
import torch
from task_files import free

from adept.base.errors import UserError
from adept.serving.load import load

ROW = {"sentence1": "A cat sat.", "sentence2": "An animal sat."}
TEXT = "sentence1: A cat sat. sentence2: An animal sat."


@pytest.fixture(scope="module")
def session(trained):
    return load(str(trained), scoring="likelihood")


def test_a_string_is_one_source_and_a_list_is_many(session):
    answer = session.answer(TEXT)
    assert answer in session.task.labels
    assert session.answer([TEXT, TEXT]) == [answer, answer]
    assert session.answer([]) == []


def test_a_row_is_rendered_as_the_task_renders_it(session):
    assert session.render(0, ROW) == TEXT
    assert session.answer(ROW) == session.answer(TEXT)
    assert session.answer([ROW, TEXT]) == session.answer([TEXT, ROW])


def test_probabilities_are_of_the_labels_and_choose_the_answer(session):
    probabilities = session.label_probabilities(ROW)
    assert probabilities.keys() == set(session.task.labels) and sum(probabilities.values()) == pytest.approx(1)
    assert max(probabilities, key=probabilities.get) == session.answer(ROW)
    assert session.label_probabilities([ROW] * 3)[2] == pytest.approx(probabilities, rel=1e-4)


def test_probabilities_are_those_of_the_model(session):
    """Log-probabilities by hand: one label at a time, teacher forced."""
    (example,) = session.encode([ROW])
    scores = []
    for label in session.task.labels:
        ids = torch.tensor([session.codec.target_ids(label)])
        with torch.no_grad():
            logits = session.model(**session.codec.source_batch([example]), labels=ids).logits
        scores.append(logits.log_softmax(-1).gather(-1, ids[..., None]).sum())
    expected = torch.stack(scores).softmax(0).tolist()
    assert [*session.label_probabilities(ROW).values()] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("source", "line"),
    [({"sentence1": "x"}, "source 0: task 'rte' needs the column 'sentence2'; found sentence1"), (7, "source 0 is 7"),
     ({**ROW, "sentence2": None}, "source 0: column 'sentence2' holds None")],
)  # fmt: skip
def test_what_is_no_source_is_one_line(session, source, line):
    with pytest.raises(UserError, match=line):
        session.answer([source])


def test_free_text_has_no_label_probabilities(write_task, train_task_file):
    path = write_task(values=("yes", "no"), **free())
    assert train_task_file(path)[0] == 0
    (adapter,) = path.parent.glob("results/runs/*/adapter.json")
    with pytest.raises(UserError, match="has free targets"):
        load(str(adapter.parent)).label_probabilities("x")


def test_the_adapter_of_a_task_file_carries_its_task(write_task, train_task_file, tmp_path):
    path = write_task()
    assert train_task_file(path)[0] == 0
    (adapter,) = path.parent.glob("results/runs/*/adapter.json")
    answer = load(str(adapter.parent)).answer({"title": "T", "body": "knock"})
    shutil.move(adapter.parent, tmp_path / "sent")
    for file in (path, *tmp_path.glob("*.csv")):
        file.unlink()
    moved = load(str(tmp_path / "sent"))
    assert moved.task.name == "jokes" and moved.answer({"title": "T", "body": "knock"}) == answer


def test_many_labels_are_scored_in_chunks_of_rows(session, monkeypatch):
    rows = [{**ROW, "sentence1": f"A cat sat {'very ' * i}still."} for i in range(9)]
    expected, answers, sizes = session.label_probabilities(rows), session.answer(rows), []
    monkeypatch.setattr("adept.training.evaluation.MOST_ANSWERS", 5)  # two labels: two rows at a time
    forward = session.model.forward

    def counting(*arguments, **inputs):
        sizes.append(len(inputs["decoder_input_ids"]))
        return forward(*arguments, **inputs)

    monkeypatch.setattr(session.model, "forward", counting)
    assert session.answer(rows) == answers
    chunked = session.label_probabilities(rows)
    assert max(sizes) == 4
    assert all(a == pytest.approx(b, rel=1e-4) for a, b in zip(expected, chunked, strict=True))
