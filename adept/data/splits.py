"""The paper's train / validation / test, made of a data set's own splits."""

from __future__ import annotations

import torch

from adept.base.errors import UserError
from adept.tasks.task import Split, Task


def permutation(count: int, seed: int) -> list[int]:
    """The released code's torch.randperm: the same seed gives the same halves."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def split_rows(task: Task, loaded: dict[str, list], seed: int) -> tuple[list, list, list]:
    """(train, validation, test) by the task's split rule; rows may be of any kind.

    Raises UserError when there are too few rows to set 1,000 aside.
    """
    parts = [loaded[name] for name in task.splits]
    match task.split:
        case Split.NATIVE:
            train, validation, test = parts
        case Split.HALVE_VALIDATION:
            train, evaluation = parts
            order = permutation(len(evaluation), seed)
            half = len(evaluation) // 2
            validation, test = [evaluation[i] for i in order[:half]], [evaluation[i] for i in order[half:]]
        case Split.CARVE_1000:
            rows, test = parts
            if len(rows) <= 1000:
                raise UserError(
                    f"task '{task.name}' sets 1,000 training rows aside for validation, but only {len(rows)} are there"
                )
            order = permutation(len(rows), seed)
            validation, train = [rows[i] for i in order[:1000]], [rows[i] for i in order[1000:]]
        case Split.TRAIN_TEST:
            (train, test), validation = parts, []
        case Split.HALVE_ROWS:
            (rows,) = parts
            train, validation, test = rows[: len(rows) // 2], [], rows[len(rows) // 2 :]
    return train[: task.max_train], validation, test
