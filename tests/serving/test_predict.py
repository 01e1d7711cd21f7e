"""The command predict: kinds of input, order, several runs, going on after a kill, the prompt, mistakes."""

import io
import json
import os
import pty
import sys

import pyarrow
import pyarrow.parquet
import pytest
from explicit_formulas import filled_session

from adept.commands import predict as command
from adept.commands.main import main
from adept.models.tiny import fixture_rows
from adept.runs.adapter import save_adapter
from adept.serving import Bank, load
from adept.serving.run_set import RunSet

ROWS = [{"sentence1": "A cat sat" + " very" * count + " still.", "sentence2": f"Cat {count}."} for count in range(11)]


@pytest.fixture
def ask(world, capsys):
    """ask(*words) -> (exit code, rows printed, stderr); in a folder with rows.jsonl and the adapter `trained`."""
    (world / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def ask(*words):
        capsys.readouterr()
        code = main(["predict", *map(str, words), "--device", "cpu"])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return ask


@pytest.fixture
def save_run(make_config, tmp_path):
    """save_run(name, family, method, **fields): the folder `name` holds an adapter with random weights."""

    def save(name, family, method, **fields):
        session = filled_session(make_config, family, method, **fields)
        save_adapter(tmp_path / name, session.trainables, session.config, session.base_weights)
        return name

    return save


def predictions(rows):
    return [row["prediction"] for row in rows]


# Kinds of input -------------------------------------------------------------------------------------------------------


def test_each_row_comes_back_with_its_prediction_in_the_order_of_the_input(ask, monkeypatch):
    monkeypatch.setattr(command, "BATCHES_A_CHUNK", 1)
    code, rows, err = ask("trained", "--input", "rows.jsonl", "--eval_batch_size", 4)
    assert code == 0 and "11 rows in" in err
    assert rows == [{**row, "prediction": text} for row, text in zip(ROWS, load("trained").answer(ROWS), strict=True)]


def test_rows_come_from_jsonl_csv_parquet_and_standard_input(ask, world, monkeypatch):
    _, expected, _ = ask("trained", "--input", "rows.jsonl", "--scoring", "likelihood")
    cells = [",".join(json.dumps(value) for value in row.values()) for row in ROWS]
    (world / "rows.csv").write_text("\n".join([",".join(ROWS[0]), *cells]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), world / "rows.parquet")
    for name in ("rows.csv", "rows.parquet"):
        assert ask("trained", "--input", name, "--scoring", "likelihood")[1] == expected
    for words in ((), ("--input", "-")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((world / "rows.jsonl").read_bytes())))
        assert ask("trained", *words, "--scoring", "likelihood")[1] == expected


def test_ready_sources_are_taken_as_they_are(ask, world):
    texts = [load("trained").render(0, row) for row in ROWS]
    (world / "ready.jsonl").write_text("".join(json.dumps({"source": text, "id": 7}) + "\n" for text in texts))
    (world / "lines.txt").write_text("\n".join(texts[:3]) + "\n\n" + "\r\n".join(texts[3:]))
    expected = predictions(ask("trained", "--input", "rows.jsonl")[1])
    _, ready, _ = ask("trained", "--input", "ready.jsonl")
    assert predictions(ready) == expected and all(row["id"] == 7 for row in ready)
    _, raw, _ = ask("trained", "--input", "lines.txt", "--raw")
    assert raw == [{"source": text, "prediction": answer} for text, answer in zip(texts, expected, strict=True)]


def test_probabilities_come_with_likelihood_and_on_request(ask):
    expected = load("trained").label_probabilities(ROWS)
    _, rows, _ = ask("trained", "--input", "rows.jsonl", "--scoring", "likelihood")
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["probabilities"] == pytest.approx(probabilities)
        assert row["prediction"] == max(probabilities, key=probabilities.get)
    _, rows, _ = ask("trained", "--input", "rows.jsonl", "--probabilities")
    assert predictions(rows) == load("trained").answer(ROWS)
    assert [row["probabilities"] for row in rows] == [pytest.approx(own) for own in expected]
    assert "probabilities" not in ask("trained", "--input", "rows.jsonl")[1][0]


def test_dates_decimals_and_missing_numbers_become_json(ask, world):
    table = pyarrow.table({
        "sentence1": ["a"], "sentence2": ["b"], "day": pyarrow.array([18_000], pyarrow.date32()),
        "score": [float("nan")], "parts": [[1, None]],
    })  # fmt: skip
    pyarrow.parquet.write_table(table, world / "rows.parquet")
    (row,) = ask("trained", "--input", "rows.parquet")[1]
    assert (row["day"], row["score"], row["parts"]) == ("2019-04-14", None, [1, None])


def test_record_is_asked_once_a_query_with_and_without_its_answers(ask, save_run, world):
    save_run("record", "t5", "pt", task="record", max_source_len=200)
    with_answers = fixture_rows("record")[:2]
    rows = [*with_answers, *({k: v for k, v in row.items() if k != "answers"} for row in with_answers)]
    (world / "record.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, answered, _ = ask("record", "--input", "record.jsonl")
    assert code == 0 and predictions(answered)[:2] == predictions(answered)[2:]
    assert all(isinstance(text, str) for text in predictions(answered))


def test_a_task_that_makes_several_questions_of_a_row_has_a_list_of_predictions(world, monkeypatch):
    import dataclasses

    from adept.serving.questions import QuestionReader

    runs = RunSet(["trained"])
    task = dataclasses.replace(runs.tasks["trained"], expand=lambda row: [{**row, "sentence2": x} for x in row["all"]])
    monkeypatch.setitem(runs.tasks, "trained", task)
    question = QuestionReader(runs).read("here", {"sentence1": "a", "all": ["b", "c", "b"]})
    assert question.texts == ("sentence1: a sentence2: b", "sentence1: a sentence2: c")
    runs.load()
    assert question.answered(runs.answers(question.requests))["prediction"] == load("trained").answer(question.texts)


def test_programs_are_written_without_permission_to_run_them(ask, save_run, world):
    save_run("code", "codegen", "adept", task="mbpp", max_source_len=96, max_new_tokens=5)
    (world / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in fixture_rows("mbpp")[:2]))
    code, rows, err = ask("code", "--input", "mbpp.jsonl")
    assert (code, len(rows)) == (0, 2), err


# Several runs ---------------------------------------------------------------------------------------------------------


def test_a_column_names_each_rows_run(ask, save_run, world):
    save_run("pt", "t5", "pt", prompt_len=3)
    save_run("lora", "t5", "lora")
    runs = ("trained", "pt", "lora")
    rows = [{**row, "by": runs[i % 3]} for i, row in enumerate(ROWS)]
    (world / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, answered, err = ask(*runs, "--input", "rows.jsonl", "--column", "by", "--scoring", "likelihood")
    assert code == 0 and "2 runs answer in one batch" in err
    assert "lora answers by itself: method 'lora' changes more than the model's input" in err
    sessions = {run: load(run, scoring="likelihood") for run in runs}
    for row, found in zip(rows, answered, strict=True):
        assert found["probabilities"] == pytest.approx(sessions[row["by"]].label_probabilities(row), rel=1e-4)


def test_runs_of_different_models_answer_one_after_another(ask, save_run, world):
    save_run("llama_pt", "llama", "pt")
    rows = [{**row, "adapter": ("trained", "llama_pt")[i % 2]} for i, row in enumerate(ROWS)]
    (world / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, answered, err = ask("trained", "llama_pt", "--input", "rows.jsonl")
    assert code == 0 and err.count("answers by itself: no other run has its model") == 2
    assert predictions(answered) == [load(row["adapter"]).answer(row) for row in rows]


# Going on -------------------------------------------------------------------------------------------------------------


def test_a_killed_prediction_goes_on_where_it_stopped(ask, world, monkeypatch):
    words, output = ("trained", "--input", "rows.jsonl", "--eval_batch_size", 2), world / "out" / "answers.jsonl"
    monkeypatch.setattr(command, "BATCHES_A_CHUNK", 1)
    _, expected, _ = ask(*words)
    asked, answers = [], RunSet.answers

    def dies_in_its_third_chunk(self, requests):
        asked.append(len(requests))
        if len(asked) == 3:
            raise MemoryError
        return answers(self, requests)

    monkeypatch.setattr(RunSet, "answers", dies_in_its_third_chunk)
    with pytest.raises(MemoryError):
        ask(*words, "--output", output)
    with output.open("ab") as file:
        file.write(b'{"sentence1": "A ca')  # a line that the disk has a part of
    code, printed, err = ask(*words, "--output", output)
    assert (code, printed) == (0, []) and f"{output} has 4 rows already; going on" in err
    assert asked == [2, 2, 2, 2, 2, 2, 1]
    assert [json.loads(line) for line in output.read_text().splitlines()] == expected
    before = output.read_bytes()
    assert "already done: " in ask(*words, "--output", output)[2] and output.read_bytes() == before


def test_an_output_of_something_else_is_left_alone(ask, world, save_run):
    words, output = ("--input", "rows.jsonl", "--output", "out.jsonl"), world / "out.jsonl"
    assert ask("trained", *words)[0] == 0
    before = output.read_bytes()
    save_run("pt", "t5", "pt")
    (world / "other.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    shorter = "".join(json.dumps(row) + "\n" for row in ROWS[:3])
    (world / "shorter.jsonl").write_text(shorter)
    for changed, reason in (
        (("pt", *words), "holds predictions that were made otherwise (runs"),
        (("trained", *words, "--beams", 2), "(beams 1, now 2)"),
        (("trained", "--input", "other.jsonl", *words[2:]), "line 1: its row is not that of other.jsonl, line 1"),
        (("trained", "--input", "shorter.jsonl", *words[2:]), "line 4: its row is not that of the end of the input"),
    ):
        code, _, err = ask(*changed)
        assert code == 2 and err.count("\n") == 1 and reason in err
        assert output.read_bytes() == before
    (world / "out.jsonl.settings.json").unlink()
    code, _, err = ask("trained", *words)
    assert code == 2 and "does not say that this command wrote it" in err and output.read_bytes() == before


# The prompt -----------------------------------------------------------------------------------------------------------


def test_a_terminal_is_a_prompt(world, capsys, monkeypatch):
    """Typed at through a pseudo-terminal."""
    ours, theirs = pty.openpty()
    os.write(ours, f"sentence1: A sentence2: B\n{json.dumps(ROWS[0])}\n\x04".encode())
    with open(theirs, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert main(["predict", "trained", "--device", "cpu"]) == 0
    os.close(ours)
    out, err = capsys.readouterr()
    assert err.count("> ") == 3
    assert out.splitlines() == load("trained").answer(["sentence1: A sentence2: B", ROWS[0]])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_at_a_prompt_several_runs_answer_and_a_mistake_costs_a_line(world, save_run, capsys, monkeypatch):
    save_run("pt", "t5", "pt", prompt_len=3)
    lines = ["hello", "", '{"sentence1": "x"', '{"sentence1": "x"}', json.dumps({**ROWS[0], "adapter": "pt"})]
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(lines)))
    assert main(["predict", "trained", "pt", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    first = Bank(["trained", "pt"]).answer([("trained", "hello"), ("pt", "hello")])
    assert out.splitlines() == [f"trained\t{first[0]}", f"pt\t{first[1]}", load("pt").answer(ROWS[0])]
    assert "error: not JSON" in err and "error: task 'rte' needs the column 'sentence2'" in err


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"sentence1": "a", "sentence2": "b"}\n\n{"sentence1": "a"}',
         "rows.jsonl, line 3: task 'rte' needs the column 'sentence2'; found sentence1"),
        ('{"sentence1": "a", "sentence2": "b"}\n{"source": "a"}', "line 2: task 'rte' needs the column 'sentence1'"),
        ('{"source": "a"}\n{"sentence1": "a", "sentence2": "b"}', "line 2: {'sentence1': 'a', 'sentence2': 'b'} is no"),
        ('{"sentence1": "a", "sentence2": null}', "line 1: column 'sentence2' holds None where text is needed"),
        ('{"sentence1": "a", "sentence2": "\\ud800"}', "line 1: 'utf-8' codec can't encode character"),
        ("[1]", "line 1: not a row but [1]"),
        ("{", "rows.jsonl, line 1: not JSON"),
        ('{"sentence1": "a", "sentence2": "b", "prediction": "c"}', "has a column 'prediction' already"),
    ],
)  # fmt: skip
def test_a_bad_row_is_one_line_that_names_its_place_before_anything_is_loaded(ask, world, content, line, monkeypatch):
    monkeypatch.setattr(RunSet, "load", lambda _: pytest.fail("loaded"))
    (world / "rows.jsonl").write_text(content)
    code, rows, err = ask("trained", "--input", "rows.jsonl")
    assert (code, rows, err.count("\n")) == (2, [], 1) and line in err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trained", "--input", "none.jsonl"], "cannot read none.jsonl: [Errno 2]"),
        (["trained", "--input", "rows.txt"], "rows come from .jsonl"),
        (["nothing", "--input", "rows.jsonl"], "no adapter 'nothing'"),
        (["trained", "trained", "--input", "rows.jsonl"], "the run 'trained' is named twice"),
        (["trained", "t5", "--input", "rows.jsonl"], "no adapter 't5'"),
        (["trained", "--input", "rows.jsonl", "--beams", "0"], "--beams must be a whole number >= 1, not 0"),
        (["trained", "--input", "rows.jsonl", "--beams", "2", "--scoring", "likelihood"], "--beams has no effect on"),
        (["trained", "--input", "rows.jsonl", "--scoring", "guess"], "--scoring must be one of generate, likelihood"),
        (["trained", "--input", "rows.jsonl", "--output", "data"], "--output data is a folder"),
        (["trained", "--input", "rows.jsonl", "--model", "llama"], "was trained on the base model"),
        (["trained", "--input", "rows.jsonl", "--lr", "3"], "unrecognized arguments: --lr 3"),
    ],
)
def test_mistakes_cost_one_line(ask, words, line):
    code, rows, err = ask(*words)
    assert (code, rows, err.count("\n")) == (2, [], 1) and line in err, err


def test_too_little_memory_is_one_line_with_its_remedy(ask, monkeypatch):
    monkeypatch.setattr(RunSet, "answers_of_all", lambda *_: bytearray(1 << 62))
    code, _, err = ask("trained", "--input", "rows.jsonl", "--output", "out.jsonl", "--eval_batch_size", 8)
    assert code == 2 and "out of memory while answering: --eval_batch_size 4 (now 8) needs less" in err


def test_a_model_that_cannot_search_is_one_line(ask, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("cannot use beam search with a cache")

    monkeypatch.setattr("transformers.T5ForConditionalGeneration.generate", refuse)
    code, _, err = ask("trained", "--input", "rows.jsonl", "--beams", 2)
    assert code == 2 and "error: --beams 2: cannot use beam search with a cache\n" in err


def test_several_runs_need_to_be_told_apart(ask, save_run, world):
    save_run("pt", "t5", "pt")
    for row, line in (
        (ROWS[0], "line 1: with 2 runs each row needs the column 'adapter'"),
        ({**ROWS[0], "adapter": "train"}, "line 1: no run 'train' was asked for; did you mean 'trained'?"),
    ):
        (world / "rows.jsonl").write_text(json.dumps(row) + "\n")
        code, _, err = ask("trained", "pt", "--input", "rows.jsonl")
        assert (code, err.count("\n")) == (2, 1) and line in err
    assert "--raw lines cannot choose" in ask("trained", "pt", "--input", "rows.jsonl", "--raw")[2]
