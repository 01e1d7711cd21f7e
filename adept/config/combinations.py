"""Options that are right alone but contradict each other."""

from __future__ import annotations

from adept.base.errors import UserError
from adept.config.run import RunConfig
from adept.methods import METHODS
from adept.tasks.task import Task


def check_combination(config: RunConfig, task: Task) -> None:
    """Raises UserError where options that are right alone contradict each other."""
    method = config.method_options
    for name in method.evaluation:
        if getattr(method, name) is not None and (config.steps or config.init_from is None):
            raise UserError(
                f"--{name} changes how a trained adapter is evaluated: it needs --init_from RUN_ID and --steps 0"
            )
    if config.fold and not method.folds:
        known = ", ".join(name for name, other in METHODS.items() if other.folds)
        raise UserError(
            f"--fold has no effect on method '{config.method}', which has no token-shared offset; {known} fold"
        )
    if task.words is None and (config.scoring == "likelihood" or config.compare_scoring):
        raise UserError(
            f"--scoring likelihood needs a task with labels; '{task.name}' has free targets: --scoring generate"
        )
