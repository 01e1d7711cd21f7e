"""Data of a task of the user's own: texts as they are written, and the one line that each bad file or row gets."""

import pytest
from task_files import GONE, HEAD, LINE, files, free, joke_rows, loaded, refused, write_rows

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
    assert [example.target for example in data.train[:2]] == ["dull", "funny"]


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
def test_the_line_of_a_bad_file_is_named(write_task, train_task_file, tmp_path, name, content, named):
    path = write_task(files={**files("jsonl"), "train": name})
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(train_task_file(path), tmp_path, str(tmp_path), named)


def test_a_date_that_is_none_is_one_line(write_task, train_task_file, tmp_path):
    path = write_task()
    path.write_text("name: 2026-13-45\n")
    refused(train_task_file(path), tmp_path, f"{path} is not valid YAML")


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
def test_a_bad_row_is_one_line(write_task, train_task_file, tmp_path, case):
    changes, cells, message = BAD_ROWS[case]
    path = write_task(["0" if changes is DULL_FUNNY else 0], files=files("jsonl"), **changes)
    bad = {
        key: value for key, value in {"title": "T", "body": "knock", "funny": 0, **cells}.items() if value is not GONE
    }
    for split in ("train", "test"):
        good = joke_rows(["0" if changes is DULL_FUNNY else 0])
        write_rows(tmp_path / f"{split}.jsonl", [*good, bad])
        refused(train_task_file(path), tmp_path, f"{tmp_path / split}.jsonl, row 12: {message}\n")
        write_rows(tmp_path / f"{split}.jsonl", good)


BAD_FILES = {
    "an empty jsonl": ("train.jsonl", "", "train.jsonl: no rows"),
    "a truncated jsonl": ("train.jsonl", LINE + LINE + LINE[:20], "train.jsonl, line 3: not JSON"),
    "one JSON document": ("train.jsonl", f"[\n{LINE}]\n", "train.jsonl, line 1: not JSON"),
    "a row that is a list": (
        "train.jsonl",
        f"{LINE}[1, 2]\n",
        "train.jsonl, row 1: not a row but [1, 2]; each line should",
    ),
    "a row that is null": ("train.jsonl", f"{LINE}null\n", "train.jsonl, row 1: not a row but None"),
    "a jsonl in Latin-1": (
        "train.jsonl",
        LINE.replace("k", "é").encode("latin-1"),
        "train.jsonl",
        "can't decode byte 0xe9",
    ),
    "an empty csv": ("train.csv", "", "train.csv"),
    "a header only": ("train.csv", "title,body,funny\n", "train.csv: no rows"),
    "another column": (
        "train.csv",
        "title,funny\nT,0\n",
        f"train.csv, row 0: {GONE_COLUMN} 'body'; found title, funny",
    ),
    "semicolons": (
        "train.csv",
        "title;body;funny\nT;knock;0\n",
        f"train.csv, row 0: {GONE_COLUMN}",
        "; found title;body;funny",
    ),
    "another label": ("train.csv", f"{HEAD}T,knock,2\n", "train.csv, row 1: funny '2' is not one of 0..1"),
    "a word as label": (
        "train.csv",
        "title,body,funny\nT,knock,dull\n",
        "train.csv, row 0: funny 'dull' is not one of 0..1",
    ),
    "a comma too many": ("train.csv", f"{HEAD}T,knock, knock,0\n", "train.csv", "3", "4"),
    "a cell too few": ("train.csv", f"{HEAD}T,0\n", "train.csv", "3", "2"),
    "a torn parquet": ("train.parquet", "PAR1 torn PAR1", "cannot read", "train.parquet"),
    "an empty parquet": ("train.parquet", "", "cannot read", "train.parquet"),
    "a jsonl called parquet": ("train.parquet", LINE, "cannot read", "train.parquet"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_data_file_is_one_line(write_task, train_task_file, tmp_path, case):
    name, content, *named = BAD_FILES[case]
    path = write_task(files={**files("jsonl"), "train": name})
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(train_task_file(path), tmp_path, str(tmp_path), *named)


def test_too_few_rows_to_set_1000_aside_is_one_line(write_task, train_task_file, tmp_path):
    path = write_task(split="carve_1000", files=files("csv", "train", "test"))
    refused(
        train_task_file(path),
        tmp_path,
        "task 'jokes' sets 1,000 training rows aside for validation, but only 12 are there",
    )
