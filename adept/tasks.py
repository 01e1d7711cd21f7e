"""A task is a row: where its data lies, how a row becomes text, how it is split, what is measured (Appendix D).

Sources are "column: value" strings joined by blanks, targets are digit strings (released code; --targets words for T5's words).
Where the paper and its released code part, the row names the RunConfig field that decides (`switches`).

python -m adept.tasks      the table of all tasks in Markdown (README.md and data/README.md hold it)
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adept import text
from adept.config import RunConfig, UserError, nearest
from adept.text import Answer, Row, Untyped, cell


class Split(enum.Enum):
    """How the paper's train / validation / test come out of the hub's splits (the labelled test sets are not public)."""

    HALVE_VALIDATION = "validation permuted by split_seed: first half validates, second half tests"
    CARVE_1000 = "train permuted by split_seed: 1,000 rows validate, the rest train; the hub's validation tests"
    NATIVE = "the data set's own train, validation and test"
    HALVE_ROWS = "the first half of the rows trains, the second tests, nothing validates: the last step's weights are tested"


@dataclass(frozen=True)
class Task:
    name: str
    hub: tuple[str, str | None] | None  # data set id and config on the hub (no loading script); None: made by adept/bundled.py
    text: tuple[str | tuple[str, str], ...] | Callable[[Row, RunConfig], str]  # columns or (key, column): "key: value key: value"
    words: tuple[str, ...] | None = None  # label words by class id (T5's); None: free text or a number
    label: str = "label"  # the column that holds the class
    values: tuple[Any, ...] | None = None  # that column's values by class id; None: 0, 1, ...
    target: Callable[[Row, RunConfig], Answer] | None = None  # row -> (target, references), where there is no class
    expand: Callable[[Row], Iterable[Row]] | None = None  # one hub row -> several, after the split
    group: Callable[[Row], str] | None = None  # rows with the same key are one question to the metrics
    metrics: tuple[str, ...] = ("accuracy",)  # the first selects the checkpoint
    report: str | None = None  # the metric the table prints, when it is another
    split: Split = Split.HALVE_VALIDATION
    splits: tuple[str, ...] = ("train", "validation")  # the hub's names of what `split` reads
    max_train: int | None = None  # the first of the training rows that are used
    groups: tuple[str, ...] = ()  # "@glue" etc.; "large": more than 70,000 training rows
    max_source_len: int = 256
    sizes: tuple[int, int, int] | None = None  # the paper's train / validation / test (QQP's 40,431 is the hub's 40,430)
    cue: str | None = "answer:"  # between source and target on decoder-only models, which see no encoder's end; None: target continues it
    switches: Mapping[str, Mapping[Any, Mapping[str, Any]]] = field(default_factory=dict)  # RunConfig field -> value -> changes of the row
    revision: str | None = None  # of the hub's data set; --data_revision goes before
    on_hub: Mapping[str, str] = field(default_factory=dict)  # split -> what the hub calls it ("test+train"), or the URL of a .jsonl file
    files: Mapping[str, Path] = field(default_factory=dict)  # split -> file (a --task_file's)
    runs_code: bool = False  # scoring executes generated programs

    @property
    def reported(self) -> str:
        return self.report or self.metrics[0]

    def under(self, config: RunConfig) -> Task:
        """The row as the config's switches have it."""
        changes: dict[str, Any] = {}
        for name, variants in self.switches.items():
            changes |= variants.get(getattr(config, name), {})
        return dataclasses.replace(self, **changes) if changes else self

    def check(self, config: RunConfig) -> None:
        """Raises UserError where the run's way of scoring is not for this task."""
        if self.words is None and (config.scoring == "likelihood" or config.compare_scoring):
            raise UserError(f"--scoring likelihood needs a task with labels; '{self.name}' has free targets: --scoring generate")

    def permit(self, config: RunConfig) -> None:
        """Raises UserError where scoring would run programs that nobody permitted."""
        if self.runs_code and not config.allow_code_execution:
            raise UserError(
                f"task '{self.name}' is scored by running programs that a model wrote: add --allow_code_execution to permit it "
                "(adept/metrics/sandbox confines them)"
            )

    def labels(self, config: RunConfig) -> tuple[str, ...] | None:
        """Target strings by class id, or None for free text."""
        if self.words is None:
            return None
        return self.words if config.targets == "words" else tuple(str(i) for i in range(len(self.words)))

    def source(self, row: Row, config: RunConfig) -> str:
        """Raises KeyError for a missing column, ValueError for one that holds no text."""
        if callable(self.text):
            return self.text(row, config)
        pairs = [(entry, entry) if isinstance(entry, str) else entry for entry in self.text]
        return " ".join(f"{key}: {cell(row, column)}" for key, column in pairs)

    def answer(self, row: Row, config: RunConfig) -> Answer:
        """(training target, references that a prediction is compared with). Raises ValueError for a label outside the list."""
        if self.target is not None:
            return self.target(row, config)
        labels, label = self.labels(config), row[self.label]
        values = self.values or tuple(range(len(labels)))
        for string, value in zip(labels, values, strict=True):
            if label == str(value) if isinstance(label, Untyped) else type(label) is type(value) and label == value:
                return string, (string,)
        known = ", ".join(map(repr, values)) if self.values else f"0..{len(values) - 1}"
        raise ValueError(f"{self.label} {label!r} is not one of {known}")


ENTAILMENT = ("entailment", "not_entailment")
TRUTH = ("False", "True")
GLUE, SUPERGLUE = "nyu-mll/glue", "aps/super_glue"

BOTH_OPTIONS = ("sentence", ("option0", "option1"), ("option1", "option2"))
ONE_OPTION = ("sentence", ("option0", "option1"), ("option1", "option1"))  # the released code's: the second option never appears

MBXP = "https://raw.githubusercontent.com/amazon-science/mxeval/main/data/mbxp/mbpp_release_v1.jsonl"
ORIGINAL_MBPP = {
    "hub": ("google-research-datasets/mbpp", "full"),
    "splits": ("google_mbpp",),
    "on_hub": {"google_mbpp": "prompt+test+validation+train"},  # in the order of their task ids, 1 to 974
    "text": text.described_prompt,
    "target": text.whole_program,
}


def question_answering(name: str, hub: str, groups: tuple[str, ...], sizes: tuple[int, int, int] | None, **fields) -> Task:
    """MRQA's form: context, question and a list of answers."""
    switches = {"qa_references": {"first": {"target": text.first_answer}}, "pad_punctuation": {}, "cut_references": {}}
    return Task(
        name, (hub, None), text.question_context, target=text.all_answers, metrics=("exact_match", "squad_f1"), report="squad_f1",
        split=Split.CARVE_1000, groups=groups, max_source_len=512, sizes=sizes, **{"switches": switches, **fields},
    )  # fmt: skip


ROWS = [
    # GLUE
    Task("mnli", (GLUE, "mnli"), ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"),
         split=Split.NATIVE, splits=("train", "validation_mismatched", "validation_matched"),
         groups=("glue", "large"), sizes=(392_702, 9_832, 9_815)),
    Task("qqp", (GLUE, "qqp"), ("question1", "question2"), ("not_duplicate", "duplicate"),
         metrics=("accuracy", "f1"), split=Split.CARVE_1000, groups=("glue", "large"), sizes=(362_846, 1_000, 40_430)),
    Task("qnli", (GLUE, "qnli"), ("question", "sentence"), ENTAILMENT,
         split=Split.CARVE_1000, groups=("glue", "large"), sizes=(103_743, 1_000, 5_463)),
    Task("sst2", (GLUE, "sst2"), ("sentence",), ("negative", "positive"),
         split=Split.CARVE_1000, groups=("glue",), sizes=(66_349, 1_000, 872)),
    Task("stsb", (GLUE, "stsb"), ("sentence1", "sentence2"), target=text.similarity_to_fifths,
         metrics=("pearson", "spearman"), groups=("glue",), sizes=(5_749, 750, 750),
         switches={"stsb_rounding": {0.1: {"target": text.similarity_to_tenths}}}),
    Task("mrpc", (GLUE, "mrpc"), ("sentence1", "sentence2"), ("not_equivalent", "equivalent"),
         metrics=("accuracy", "f1"), groups=("glue",), sizes=(3_668, 204, 204)),
    Task("rte", (GLUE, "rte"), ("sentence1", "sentence2"), ENTAILMENT,
         groups=("glue",), sizes=(2_490, 138, 139)),
    Task("cola", (GLUE, "cola"), ("sentence",), ("unacceptable", "acceptable"),
         metrics=("matthews",), groups=("glue",), sizes=(8_551, 521, 522)),
    # SuperGLUE
    Task("multirc", (SUPERGLUE, "multirc"), text.without_markup, TRUTH, group=text.question_of,
         metrics=("f1", "question_em"), groups=("superglue",), max_source_len=348, sizes=(27_243, 2_424, 2_424)),
    Task("boolq", (SUPERGLUE, "boolq"), ("question", "passage"), TRUTH,
         groups=("superglue",), sizes=(9_427, 1_635, 1_635)),
    Task("wic", (SUPERGLUE, "wic"), ("sentence1", "sentence2", "word"), TRUTH,
         groups=("superglue",), sizes=(5_428, 319, 319)),
    Task("wsc", (SUPERGLUE, "wsc.fixed"), text.marked_spans, TRUTH,
         groups=("superglue",), sizes=(554, 52, 52)),
    Task("cb", (SUPERGLUE, "cb"), ("premise", "hypothesis"), ("entailment", "contradiction", "neutral"),
         metrics=("f1_macro", "accuracy"), report="accuracy", groups=("superglue",), sizes=(250, 28, 28)),
    Task("record", (SUPERGLUE, "record"), text.record_query, target=text.record_answers, expand=text.row_per_answer, group=text.query_of,
         metrics=("squad_f1", "exact_match"), split=Split.CARVE_1000, groups=("superglue", "large"), max_source_len=512,
         sizes=(137_484, 1_370, 15_176),
         switches={"record_scoring": {"row": {"target": text.record_own_answer, "group": None}}, "cut_references": {}}),
    # MRQA
    question_answering("nq", "lucadiliello/naturalquestionsshortqa", ("mrqa", "large"), (103_071, 1_000, 12_836)),
    question_answering("hotpotqa", "lucadiliello/hotpotqa", ("mrqa", "large"), (71_928, 1_000, 5_901)),
    question_answering("searchqa", "lucadiliello/searchqa", ("mrqa", "large"), (116_384, 1_000, 16_980)),
    question_answering("newsqa", "lucadiliello/newsqa", ("mrqa", "large"), (73_160, 1_000, 4_212)),
    # Others
    Task("winogrande", ("allenai/winogrande", "winogrande_xl"), BOTH_OPTIONS, ("option0", "option1"), label="answer", values=("1", "2"),
         split=Split.CARVE_1000, groups=("other",), sizes=(39_398, 1_000, 1_267),
         switches={"winogrande_options": {"first_twice": {"text": ONE_OPTION}}}),
    Task("yelp_polarity", ("fancyzhx/yelp_polarity", "plain_text"), (("sentence", "text"),), ("negative", "positive"),
         split=Split.CARVE_1000, splits=("train", "test"), max_train=100_000, groups=("other", "large"), sizes=(100_000, 1_000, 38_000)),
    Task("scitail", ("allenai/scitail", "snli_format"), (("premise", "sentence1"), ("hypothesis", "sentence2")), ("entailment", "neutral"),
         label="gold_label", values=("entailment", "neutral"), groups=("other",), sizes=(23_596, 652, 652),
         switches={"scitail_test": {"hub": {"split": Split.NATIVE, "splits": ("train", "validation", "test")}}}),
    Task("paws", ("google-research-datasets/paws", "labeled_final"), ("sentence1", "sentence2"), ("not_paraphrase", "paraphrase"),
         split=Split.NATIVE, splits=("train", "validation", "test"), groups=("other",), sizes=(49_401, 8_000, 8_000)),
    # Code, for decoder-only models
    Task("mbpp", ("mxeval/mbxp", "python"), text.docstring_prompt, target=text.function_body,
         metrics=("pass@1_two_versions", "pass@1", "pass@10"), runs_code=True, cue=None,
         split=Split.HALVE_ROWS, splits=("mbxp_mbpp_release_v1",), on_hub={"mbxp_mbpp_release_v1": MBXP},
         groups=("code",), max_source_len=325, sizes=(487, 0, 487),
         switches={"mbpp_prompt": {"original": ORIGINAL_MBPP}, "mbpp_cleanup": {}, "temperature": {}, "top_p": {}, "samples": {}}),
    # A source of transfer (Appendix B.2), and the bundled data set
    question_answering("squad", "lucadiliello/squad", (), None, switches={
        "qa_references": {"first": {"target": text.first_answer}}, "pad_punctuation": {}, "cut_references": {},
        "squad_target": {"printed": {"target": text.printed_answers}},
    }),
    Task("movie_reviews", None, ("review",), ("negative", "positive"),
         split=Split.NATIVE, splits=("train", "validation", "test"), cue="sentiment:"),
]  # fmt: skip

TASKS = {task.name: task for task in ROWS}

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(task.name for task in ROWS if group in task.groups) for group in ("glue", "superglue", "mrqa", "other", "code", "large")
} | {"all": tuple(task.name for task in ROWS if task.sizes)}
"""Names that stand for several tasks, written "@glue" where a task name is; "@all" is the paper's 23."""


def find_task(name: str) -> Task:
    """The row, or UserError naming the nearest."""
    if name[:1] == "@" and name[1:] in GROUPS:
        raise UserError(f"'{name}' stands for several tasks ({', '.join(GROUPS[name[1:]])}), and a run has one")
    if name not in TASKS:
        raise UserError(f"unknown task '{name}'; {nearest(name, [*TASKS, *(f'@{group}' for group in GROUPS)])}")
    return TASKS[name]


def task_names(name: str) -> tuple[str, ...]:
    """The tasks that "@glue", or a task's own name, stands for. Raises UserError for an unknown group."""
    if not name.startswith("@"):
        return (name,)
    if name[1:] not in GROUPS:
        raise UserError(f"unknown task group '{name}'; {nearest(name, [f'@{group}' for group in GROUPS])}")
    return GROUPS[name[1:]]


def task_of(config: RunConfig) -> Task:
    """The row of a run, from its --task_file or the table above, as its switches have it. Raises UserError."""
    if config.task_file is not None:
        from adept.task_file import read_task

        return read_task(Path(config.task_file))
    return find_task(config.task).under(config)


def task_specific_fields() -> set[str]:
    """RunConfig fields that only some tasks read."""
    return {name for task in ROWS for name in task.switches}


# The tables of README.md and data/README.md -----------------------------------------------------------------------------


def overview(fixtures: Path) -> str:
    """Markdown: every task with its sizes, metric and the text of its first row in `fixtures`/<task>.jsonl."""
    from adept.config import resolve
    from adept.data import read_rows

    lines = ["| task | group | train / validation / test | metric | source → target |", "|---|---|---|---|---|"]
    for task in ROWS:
        config = resolve({"task": task.name, "allow_code_execution": task.runs_code})
        row = read_rows(fixtures / f"{task.name}.jsonl")[0]
        piece = next(iter(task.expand(row))) if task.expand else row
        target, _ = task.answer(piece, config)
        group = next((group for group in task.groups if group != "large"), "")
        metric = task.reported if task.reported == task.metrics[0] else f"{task.reported} (selected on {task.metrics[0]})"
        lines.append(
            f"| {task.name} | {group and '@' + group} | {counts(task)} | {metric} | {as_code(task.source(piece, config), target)} |"
        )
    return "\n".join(lines) + "\n"


def counts(task: Task) -> str:
    return " / ".join(f"{size:,}" if size else "–" for size in task.sizes) if task.sizes else "not in the paper"


def as_code(source: str, target: str) -> str:
    """`source` → `target` on one line of a Markdown table."""

    def quoted(string: str, room: int) -> str:
        string = string.replace("\n", "⏎").replace("\t", "⇥").replace("|", "\\|")
        return f"`{string if len(string) <= room else string[:room] + '…'}`"

    return f"{quoted(source, 160)} → {quoted(target, 40)}"


SPLIT_NAMES = {
    Split.HALVE_VALIDATION: "halves of its validation set",
    Split.CARVE_1000: "1,000 training rows; its {test} set",
    Split.NATIVE: "its {validation} and {test} sets",
    Split.HALVE_ROWS: "no validation; the second half of its rows",
}


def protocols() -> str:
    """Markdown: every task with its data set, its split rule, and its switches under both protocols."""
    from adept.config import resolve

    lines = ["| task | data set on the hub | validation; test | `paper` | `official` |", "|---|---|---|---|---|"]
    for task in ROWS:
        cells = []
        for protocol in ("paper", "official"):
            config = resolve({"task": task.name, "protocol": protocol, "allow_code_execution": task.runs_code})
            cells.append("<br>".join(f"{name} {str(getattr(config, name)).lower()}" for name in task.switches))
        place = " ".join(part for part in task.hub or ("bundled",) if part)
        names = dict(zip(("test", "validation"), reversed(task.splits), strict=False))
        lines.append(f"| {task.name} | {place} | {SPLIT_NAMES[task.split].format(**names)} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from adept.config import ROOT

    print(overview(ROOT / "data" / "fixtures"))
    print(protocols())
