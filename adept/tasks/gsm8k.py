"""GSM8K, grade-school mathematics (Cobbe et al. 2021), on which the paper reports no success (Appendix B.3)."""

from __future__ import annotations

from adept.tasks.rows import Answer, Row, text_value
from adept.tasks.task import Split, Task, TaskOptions


def worked_answer(row: Row, options: TaskOptions) -> Answer:
    """The whole solution is learned; it ends with "#### 18", and that number is compared."""
    solution = text_value(row, "answer")
    return solution, (solution,)


ROWS = (
    Task("gsm8k", ("openai/gsm8k", "main"), ("question",), target=worked_answer, metrics=("final_number",),
         split=Split.TRAIN_TEST, splits=("train", "test"), decoder_only=True, sizes=(7_473, 0, 1_319)),
)  # fmt: skip
