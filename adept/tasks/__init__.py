"""Every task that --task can name. To add one: a row in one of the files here; a new file is listed in ROWS."""

from __future__ import annotations

from adept.base.errors import UserError, nearest
from adept.tasks import glue, gsm8k, mbpp, movie_reviews, mrqa, others, superglue
from adept.tasks.task import Split, Task, TaskOptions

ROWS: tuple[Task, ...] = (
    *glue.ROWS,
    *superglue.ROWS,
    *mrqa.ROWS,
    *others.ROWS,
    *mbpp.ROWS,
    *gsm8k.ROWS,
    mrqa.SQUAD,
    *movie_reviews.ROWS,
)

TASKS: dict[str, Task] = {task.name: task for task in ROWS}

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(task.name for task in ROWS if group in task.groups)
    for group in ("glue", "superglue", "mrqa", "other", "code", "large")
} | {"all": tuple(task.name for task in ROWS if task.groups)}
"""Names that stand for several tasks, written "@glue" where a task name is; "@all" is the paper's 23."""


def find_task(name: str) -> Task:
    """The task of that name. Raises UserError that names the nearest."""
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


__all__ = ["GROUPS", "ROWS", "TASKS", "Split", "Task", "TaskOptions", "find_task", "task_names"]
