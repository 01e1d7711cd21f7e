"""A task of the user's own: a YAML file -> a Task row.

name: jokes                              # letters, digits, _ . -
files: {train: train.csv, validation: validation.csv, test: test.csv}   # .parquet, .jsonl or .csv, beside the YAML file
text: [title, {joke: body}]              # columns of the source, in order; {key: column} names one anew: "title: ... joke: ..."
label: funny                             # the column of the class ...
labels: {dull: 0, funny: 1}              # ... and word: value in that column; a list of words stands for 0, 1, ...
metrics: [accuracy]

In place of label and labels, `target: column` names free text to generate (one text, or a list of which any is right). In place of
files, `hub: {id: someone/jokes, config: null, revision: null}` names a data set on the hub. `split` is native (train, validation, test;
the default), halve_validation (train, validation) or carve_1000 (train, test); where the data's splits have other names, `splits` lists
them in that order. Optional: report, max_source_len, cue.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from adept.config import RunConfig, UserError, known_tags, nearest, read_yaml
from adept.metrics import METRICS
from adept.tasks import Split, Task
from adept.text import Answer, Row

KEYS = {
    "name": str, "files": dict, "hub": dict, "splits": list, "split": str, "text": list, "label": str, "labels": (list, dict),
    "target": str, "metrics": list, "report": str, "max_source_len": int, "cue": str,
}  # fmt: skip
SPLITS = {"native": Split.NATIVE, "halve_validation": Split.HALVE_VALIDATION, "carve_1000": Split.CARVE_1000}
USUAL = {
    Split.NATIVE: ("train", "validation", "test"),
    Split.HALVE_VALIDATION: ("train", "validation"),
    Split.CARVE_1000: ("train", "test"),
}
NEEDS_LABELS = ("f1", "f1_macro", "matthews", "question_em")
TWO_CLASSES = ("f1", "matthews")


def read_task(path: Path) -> Task:
    """The row that the file describes. Raises UserError naming the file and the key that is wrong."""
    content = read_yaml(path)

    def wrong(what: str) -> UserError:
        return UserError(f"task file {path}: {what}")

    for key, value in content.items():
        if key not in KEYS:
            raise wrong(f"unknown key {key!r}; {nearest(str(key), KEYS)}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise wrong(f"'{key}' must be {kind_names(KEYS[key])}, not {value!r:.40}")
        if value in ("", [], {}):
            raise wrong(f"'{key}' is empty")
    for key in ("name", "text"):
        if key not in content:
            raise wrong(f"'{key}' is missing")
    name = content["name"]
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name):
        raise wrong(f"'name' must be at most 64 letters, digits, '_', '.' and '-', not {name!r:.80}")
    if name in known_tags():  # configs/ would take it for what bears that name
        raise wrong(f"'name' is '{name}', which is a task, task group, method or model already; choose another")
    for one, other in (("files", "hub"), ("labels", "target")):
        if (one in content) == (other in content):
            raise wrong(f"either '{one}' or '{other}' is needed" + (", not both" if one in content else ""))
    if "label" in content and "labels" not in content:
        raise wrong("'label' names the column of a class, so 'labels' must list its words")
    if content.get("max_source_len", 1) < 1:
        raise wrong(f"'max_source_len' must be at least 1, not {content['max_source_len']}")

    words, values = read_labels(content, wrong)
    split, splits = read_splits(content, wrong)
    files = {}
    for key, value in content.get("files", {}).items():
        file = path.parent / str(value)
        if file.suffix not in {".parquet", ".jsonl", ".csv"}:
            raise wrong(f"files: {key} is {str(value)!r}, which must end in .parquet, .jsonl or .csv")
        files[key] = file
    hub = content.get("hub", {})
    if unknown := hub.keys() - {"id", "config", "revision"}:
        raise wrong(f"hub: unknown key {min(map(str, unknown))!r}; known: config, id, revision")
    if hub and not hub.get("id"):
        raise wrong("hub: 'id' is missing, for example someone/jokes")
    for key, value in hub.items():
        if not isinstance(value, str | None):
            raise wrong(f"hub: '{key}' must be text, not {value!r:.40} (quote what YAML takes for true, false or numbers)")
    fields = {key: content[key] for key in ("label", "report", "max_source_len", "cue") if key in content}
    return Task(
        name=name,
        hub=(hub["id"], hub.get("config")) if hub else ("files", None),
        text=tuple(read_column(entry, wrong) for entry in content["text"]),
        words=words,
        values=values,
        target=free_text(content["target"]) if words is None else None,
        metrics=read_metrics(content, words, wrong),
        split=split,
        splits=splits,
        revision=hub.get("revision"),
        files=files,
        **fields,
    )


def kind_names(kinds: type | tuple[type, ...]) -> str:
    names = {str: "text", dict: "a mapping", list: "a list", int: "a whole number"}
    return " or ".join(names[kind] for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))


def read_column(entry: Any, wrong) -> str | tuple[str, str]:
    if isinstance(entry, str) and entry:
        return entry
    if isinstance(entry, dict) and len(entry) == 1 and all(isinstance(part, str) for pair in entry.items() for part in pair):
        return next(iter(entry.items()))
    raise wrong(f"text: {entry!r:.40} is neither a column nor {{key: column}}")


def read_labels(content: dict, wrong) -> tuple[tuple[str, ...] | None, tuple | None]:
    """(words by class id, the label column's values by class id or None for 0, 1, ...)"""
    if "labels" not in content:
        return None, None
    labels = content["labels"]
    words = tuple(labels)
    if len(words) < 2 or not all(isinstance(word, str) and word and word == word.strip() for word in words) or len(set(words)) < len(words):
        raise wrong(
            f"'labels' must be at least two different words without blanks around them, not {list(words)!r:.60} "
            "(quote what YAML takes for true, false or numbers)"
        )
    if isinstance(labels, list):
        return words, None
    values = tuple(labels.values())
    # 0 and false, or 1 and "1", are hardly meant as two classes, and a .csv file could not tell the latter.
    if len({str(int(value)) if isinstance(value, bool) else str(value) for value in values if isinstance(value, str | int)}) < len(values):
        raise wrong(f"'labels' must be mapped to different texts or whole numbers, not {list(labels.values())!r:.60}")
    return words, values


def read_splits(content: dict, wrong) -> tuple[Split, tuple[str, ...]]:
    kind = content.get("split", "native")
    if kind not in SPLITS:
        raise wrong(f"'split' is {kind!r}; {nearest(kind, SPLITS)}")
    usual = USUAL[SPLITS[kind]]
    splits = tuple(content.get("splits", usual))
    if len(splits) != len(usual) or not all(isinstance(name, str) and name for name in splits):
        raise wrong(f"'splits' must be {len(usual)} names, in the order of {', '.join(usual)} (split: {kind}), not {list(splits)!r:.60}")
    found = content.get("files", splits)
    if set(found) != set(splits):
        raise wrong(
            f"'files' has {', '.join(map(str, found))}, but split '{kind}' reads {', '.join(splits)} "
            "(halve_validation reads train, validation; carve_1000 reads train, test; 'splits' gives other names)"
        )
    return SPLITS[kind], splits


def read_metrics(content: dict, words: tuple[str, ...] | None, wrong) -> tuple[str, ...]:
    names = tuple(content.get("metrics", ["accuracy"] if words else ["exact_match", "squad_f1"]))
    allowed = [name for name in METRICS if not name.startswith("pass@") and (words or name not in NEEDS_LABELS)]
    for name in names:
        if name not in allowed:
            raise wrong(f"'metrics': {name!r} is not for this task; {nearest(str(name), allowed)}")
    if words and len(words) != 2 and (binary := set(names) & set(TWO_CLASSES)):
        raise wrong(f"'metrics': '{min(binary)}' is for two classes, and labels has {len(words)}; f1_macro is for more")
    if "report" in content and content["report"] not in names:
        raise wrong(f"'report' is {content['report']!r}, which is none of its metrics: {', '.join(names)}")
    return names


def free_text(column: str):
    """target= of a column that holds one right answer or a list of them; numbers count as text."""

    def target(row: Row, config: RunConfig) -> Answer:
        value = row[column]
        answers = value if isinstance(value, list) else [value]
        texts = tuple(
            str(answer).strip()
            for answer in answers
            if isinstance(answer, str | int | float) and not isinstance(answer, bool) and answer == answer
        )
        if not texts or len(texts) < len(answers) or not all(texts):
            raise ValueError(f"column '{column}' holds {value!r:.40} where a text or a list of texts is needed")
        return texts[0], texts

    return target
