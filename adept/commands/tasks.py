"""Prints the two tables of tasks of README.md and data/README.md, in Markdown: python -m adept tasks"""

from __future__ import annotations

from pathlib import Path

from adept.base.console import print_result
from adept.config.layers import resolve
from adept.config.run import task_of
from adept.data.sources import read_rows
from adept.models.tiny import FIXTURE_FOLDER
from adept.tasks import ROWS
from adept.tasks.task import Split, Task


def main(arguments: list[str]) -> int:
    """Prints both tables."""
    print_result(overview(FIXTURE_FOLDER))
    print_result(protocols())
    return 0


def overview(fixtures: Path) -> str:
    """Markdown: every task with its sizes, metric and the text of its first row in `fixtures`/<task>.jsonl."""
    lines = ["| task | group | train / validation / test | metric | source → target |", "|---|---|---|---|---|"]
    for row in ROWS:
        task = task_of(resolve({"task": row.name, "allow_code_execution": row.runs_code}))
        first = read_rows(fixtures / f"{task.name}.jsonl")[0]
        piece = next(iter(task.expand(first))) if task.expand else first
        target, _ = task.answer(piece)
        group = next((group for group in task.groups if group != "large"), "")
        metric = (
            task.reported if task.reported == task.metrics[0] else f"{task.reported} (selected on {task.metrics[0]})"
        )
        text = as_code(task.source(piece), target)
        lines.append(f"| {task.name} | {group and '@' + group} | {sizes(task)} | {metric} | {text} |")
    return "\n".join(lines) + "\n"


def sizes(task: Task) -> str:
    """The paper's numbers of training, validation and test rows."""
    return " / ".join(f"{size:,}" if size else "–" for size in task.sizes) if task.sizes else "not in the paper"


def as_code(source: str, target: str) -> str:
    """`source` → `target` in one cell of a Markdown table, long texts cut."""

    def quoted(text: str, limit: int) -> str:
        text = text.replace("\n", "⏎").replace("\t", "⇥").replace("|", "\\|")
        return f"`{text if len(text) <= limit else text[:limit] + '…'}`"

    return f"{quoted(source, 160)} → {quoted(target, 40)}"


SPLIT_NAMES = {
    Split.HALVE_VALIDATION: "halves of its validation set",
    Split.CARVE_1000: "1,000 training rows; its {test} set",
    Split.NATIVE: "its {validation} and {test} sets",
    Split.TRAIN_TEST: "no validation; its {test} set",
    Split.HALVE_ROWS: "no validation; the second half of its rows",
}


def protocols() -> str:
    """Markdown: every task with its data set, its split rule, and its options under both protocols."""
    lines = ["| task | data set on the hub | validation; test | `paper` | `official` |", "|---|---|---|---|---|"]
    for task in ROWS:
        cells = []
        for protocol in ("paper", "official"):
            config = resolve({"task": task.name, "protocol": protocol, "allow_code_execution": task.runs_code})
            options = config.task_options
            cells.append("<br>".join(f"{name} {str(getattr(options, name)).lower()}" for name in options.own_options()))
        dataset = " ".join(part for part in task.hub or ("bundled",) if part)
        names = dict(zip(("test", "validation"), reversed(task.splits), strict=False))
        lines.append(
            f"| {task.name} | {dataset} | {SPLIT_NAMES[task.split].format(**names)} | {cells[0]} | {cells[1]} |"
        )
    return "\n".join(lines) + "\n"
