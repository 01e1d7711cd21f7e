"""A task of the user's own: a YAML file -> a Task.

name: jokes                              # letters, digits, _ . -
files: {train: train.csv, validation: validation.csv, test: test.csv}   # .parquet, .jsonl or .csv, beside the YAML file
text: [title, {joke: body}]              # columns of the source in order; {key: column} renames: "title: ... joke: ..."
label: funny                             # the column of the class ...
labels: {dull: 0, funny: 1}              # ... and word: value in that column; a list of words stands for 0, 1, ...;
                                         # the model reads and says the words (--targets digits: 0, 1, ...)
metrics: [accuracy]

In place of label and labels, `target: column` names free text to generate (one text, or a list of which any is right).
In place of files, `hub: {id: someone/jokes, config: null, revision: null}` names a data set on the hub. `split` is
native (train, validation, test; the default), halve_validation (train, validation) or carve_1000 (train, test); where
the data's splits have other names, `splits` lists them in that order. Optional: report, max_source_len, cue.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from adept.base.errors import nearest
from adept.base.validation import FileContent, line_error, validate
from adept.base.yaml_files import read_yaml
from adept.metrics import METRICS
from adept.tasks.rows import Answer, Row
from adept.tasks.task import Split, Task, TaskOptions

SPLITS = {"native": Split.NATIVE, "halve_validation": Split.HALVE_VALIDATION, "carve_1000": Split.CARVE_1000}
USUAL_SPLITS = {
    "native": ("train", "validation", "test"),
    "halve_validation": ("train", "validation"),
    "carve_1000": ("train", "test"),
}
NEEDS_LABELS = ("f1", "f1_macro", "matthews", "question_em")
NEEDS_TWO_CLASSES = ("f1", "matthews")
ENDINGS = {".parquet", ".jsonl", ".csv"}
QUOTE = "(quote what YAML takes for true, false or numbers)"


class HubSource(BaseModel):
    """A data set on the hub."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: str
    config: str | None = None
    revision: str | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str | None):
            raise line_error(f"'{info.field_name}' must be text, not {value!r:.40} {QUOTE}")
        if info.field_name == "id" and not value:
            raise line_error("'id' is missing, for example someone/jokes")
        return value


class TaskFile(FileContent):
    """The keys of a task file, checked one by one and together."""

    name: str
    files: dict[str, Any] = Field(default_factory=dict)
    hub: HubSource | None = None
    splits: list[Any] = Field(default_factory=list)
    split: str = "native"
    text: list[Any]
    label: str = "label"
    labels: list[Any] | dict[Any, Any] = Field(default_factory=list)
    target: str = ""
    metrics: list[Any] = Field(default_factory=list)
    report: str = ""
    max_source_len: int = Field(256, ge=1)
    cue: str = "answer:"

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", value):
            raise line_error(f"'name' must be at most 64 letters, digits, '_', '.' and '-', not {value!r:.80}")
        return value

    @field_validator("text")
    @classmethod
    def _holds_columns(cls, value: list) -> list:
        for entry in value:
            column = isinstance(entry, str) and entry
            renamed = (
                isinstance(entry, dict)
                and len(entry) == 1
                and all(isinstance(s, str) for s in next(iter(entry.items())))
            )
            if not (column or renamed):
                raise line_error(f"text: {entry!r:.40} is neither a column nor {{key: column}}")
        return value

    @field_validator("labels")
    @classmethod
    def _are_different_words(cls, value: list | dict) -> list | dict:
        words = list(value)
        are_words = all(isinstance(word, str) and word and word == word.strip() for word in words)
        if len(words) < 2 or not are_words or len(set(words)) < len(words):
            raise line_error(
                f"'labels' must be at least two different words without blanks around them, not {words!r:.60} {QUOTE}"
            )
        if isinstance(value, dict):
            # 0 and false, or 1 and "1", are hardly meant as two classes, and a .csv file could not tell the latter.
            values = list(value.values())
            written = {str(int(v)) if isinstance(v, bool) else str(v) for v in values if isinstance(v, str | int)}
            if len(written) < len(values):
                raise line_error(f"'labels' must be mapped to different texts or whole numbers, not {values!r:.60}")
        return value

    @field_validator("split")
    @classmethod
    def _is_a_rule(cls, value: str) -> str:
        if value not in SPLITS:
            raise line_error(f"'split' is {value!r}; {nearest(value, SPLITS)}")
        return value

    @field_validator("files")
    @classmethod
    def _have_an_ending(cls, value: dict) -> dict:
        for key, file in value.items():
            if Path(str(file)).suffix not in ENDINGS:
                raise line_error(f"files: {key} is {str(file)!r}, which must end in .parquet, .jsonl or .csv")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = self.model_fields_set
        for one, other in (("files", "hub"), ("labels", "target")):
            if (one in given) == (other in given):
                raise line_error(f"either '{one}' or '{other}' is needed" + (", not both" if one in given else ""))
        if "label" in given and "labels" not in given:
            raise line_error("'label' names the column of a class, so 'labels' must list its words")
        self._check_splits()
        self._check_metrics()
        return self

    def _check_splits(self) -> None:
        usual = USUAL_SPLITS[self.split]
        if len(self.split_names) != len(usual) or not all(isinstance(name, str) and name for name in self.split_names):
            raise line_error(
                f"'splits' must be {len(usual)} names, in the order of {', '.join(usual)} (split: {self.split}), "
                f"not {list(self.split_names)!r:.60}"
            )
        if self.files and set(self.files) != set(self.split_names):
            raise line_error(
                f"'files' has {', '.join(map(str, self.files))}, but split '{self.split}' reads "
                f"{', '.join(self.split_names)} (halve_validation reads train, validation; carve_1000 reads train, "
                "test; 'splits' gives other names)"
            )

    def _check_metrics(self) -> None:
        allowed = [
            name for name in METRICS if not name.startswith("pass@") and (self.labels or name not in NEEDS_LABELS)
        ]
        for name in self.metric_names:
            if name not in allowed:
                raise line_error(f"'metrics': {name!r} is not for this task; {nearest(str(name), allowed)}")
        if self.labels and len(self.labels) != 2 and (binary := set(self.metric_names) & set(NEEDS_TWO_CLASSES)):
            raise line_error(
                f"'metrics': '{min(binary)}' is for two classes, and labels has {len(self.labels)}; "
                "f1_macro is for more"
            )
        if self.report and self.report not in self.metric_names:
            raise line_error(
                f"'report' is {self.report!r}, which is none of its metrics: {', '.join(self.metric_names)}"
            )

    @property
    def split_names(self) -> tuple[Any, ...]:
        """The data's names of the splits, in the order of the split rule."""
        return tuple(self.splits or USUAL_SPLITS[self.split])

    @property
    def metric_names(self) -> tuple[Any, ...]:
        return tuple(self.metrics or (["accuracy"] if self.labels else ["exact_match", "squad_f1"]))


def read_task(path: Path) -> Task:
    """The task that the file describes. Raises UserError that names the file and the key that is wrong."""
    content = validate(TaskFile, read_yaml(path), f"task file {path}")
    return Task(
        name=content.name,
        hub=(content.hub.id, content.hub.config) if content.hub else ("files", None),
        text=tuple(entry if isinstance(entry, str) else next(iter(entry.items())) for entry in content.text),
        words=tuple(content.labels) or None,
        targets="words",
        label=content.label,
        values=tuple(content.labels.values()) if isinstance(content.labels, dict) else None,
        target=None if content.labels else free_text(content.target),
        metrics=content.metric_names,
        report=content.report or None,
        split=SPLITS[content.split],
        splits=content.split_names,
        max_source_len=content.max_source_len,
        cue=content.cue,
        revision=content.hub.revision if content.hub else None,
        files={key: path.parent / str(file) for key, file in content.files.items()},
    )


def free_text(column: str):
    """The target of a column that holds one right answer or a list of them; numbers count as text."""

    def target(row: Row, options: TaskOptions) -> Answer:
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
