"""predictions.jsonl: what a run predicted for each test row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError, first_line
from adept.data.example import Example
from adept.runs.layout import predictions_path


class Prediction(BaseModel):
    """One line. group: the id of the row's question, where that has several rows."""

    model_config = ConfigDict(strict=True)

    id: str
    prediction: str
    references: list[str] = Field(min_length=1)
    group: str = ""

    @property
    def question(self) -> str:
        """The id of the question that the row belongs to."""
        return self.group or self.id


def write_predictions(path: Path, examples: Sequence[Example], predictions: Sequence[str]) -> None:
    """Writes a line for each test example. Raises UserError when the disk refuses."""
    lines = [
        json.dumps(
            {"id": e.id, "prediction": p, "references": list(e.references)}
            | ({"group": e.group} if e.group != e.id else {}),
            ensure_ascii=False,
        )
        for e, p in zip(examples, predictions, strict=True)
    ]
    write_atomically(path, "\n".join(lines) + "\n")


def read_predictions(results_dir: str, run_id: str) -> list[Prediction]:
    """The test predictions of a run. Raises UserError where they are not there or not readable."""
    path = predictions_path(results_dir, run_id)
    try:
        predictions = [Prediction.model_validate(json.loads(line)) for line in path.read_bytes().splitlines()]
        if not predictions:
            raise ValueError("the file is empty")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} holds no readable predictions ({first_line(error, 100)}); run it again") from error
    return predictions
