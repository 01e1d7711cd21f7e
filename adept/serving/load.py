"""A trained run, loaded to predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

import torch

from adept.base.errors import UserError, first_line
from adept.config.run import RunConfig
from adept.data.example import Example
from adept.runs.adapter import (
    DESCRIPTION,
    TASK_FILE,
    find_adapter,
    read_description,
    require_same_base,
    require_same_seed,
    restore_adapter,
)
from adept.runs.peft_files import read_peft
from adept.serving.peft_folders import foreign_config, open_foreign
from adept.tasks.rows import Row
from adept.training.evaluation import label_log_probabilities, predict, rows_at_once
from adept.training.session import Session, open_session

Source = str | Row
"""What is answered: a row of the task's columns, or a text rendered as the task renders its rows ("review: ...")."""


class TrainedSession(Session):
    """A session whose adapter has been trained."""

    @overload
    def answer(self, sources: Source) -> str: ...

    @overload
    def answer(self, sources: Sequence[Source]) -> list[str]: ...

    def answer(self, sources):
        """The predicted string of one source, or of each of a list.

        Raises UserError for what is no source, naming the column that a row lacks.
        """
        if isinstance(sources, str | Mapping):
            return self.answer([sources])[0]
        return predict(self, self.encode(sources)) if len(sources) else []

    @overload
    def label_probabilities(self, sources: Source) -> dict[str, float]: ...

    @overload
    def label_probabilities(self, sources: Sequence[Source]) -> list[dict[str, float]]: ...

    @torch.no_grad()
    def label_probabilities(self, sources):
        """{label: probability among the labels} of one source, or of each of a list.

        Raises UserError where the task has no labels, and as answer() does.
        """
        if isinstance(sources, str | Mapping):
            return self.label_probabilities([sources])[0]
        if (labels := self.task.labels) is None:
            raise UserError(f"task '{self.task.name}' has free targets, so its answers have no label probabilities")
        found, rows = [], rows_at_once(self, len(labels))
        examples = self.encode(sources)
        for start in range(0, len(examples), rows):
            batch = self.codec.source_batch(examples[start : start + rows])
            with self.autocast():
                scores = label_log_probabilities(self, {name: ids.to(self.device) for name, ids in batch.items()})
            found += [dict(zip(labels, row, strict=True)) for row in scores.softmax(-1).tolist()]
        return found

    def encode(self, sources: Sequence[Source]) -> list[Example]:
        """The sources as token ids."""
        examples = [Example(str(i), self.render(i, source), "", ()) for i, source in enumerate(sources)]
        return self.codec.encode(examples)

    def render(self, number: int, source: Source) -> str:
        """The text of a source. Raises UserError, which names its number, where it has none."""
        if isinstance(source, str):
            return source
        if not isinstance(source, Mapping):
            raise UserError(f"source {number} is {source!r:.40}; it must be a text or a row, {{column: value}}")
        try:
            return self.task.source(source)
        except KeyError as error:
            raise UserError(
                f"source {number}: task '{self.task.name}' needs the column {error}; found {', '.join(source)}"
            ) from error
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(f"source {number}: {error}") from error


def load(name: str, *, results_dir: str = "results", **overrides) -> TrainedSession:
    """A trained run, ready to predict: `name` is a run id under results_dir or an adapter folder.

    overrides: options to change, such as device="cuda". The adapter of a task of the user's own carries its task file.
    A folder of PEFT's (prompt tuning, LoRA) and one that DePT's authors released do not say their task: task="rte".
    Raises UserError when it cannot be read or does not fit.
    """
    folder = find_adapter(name, results_dir)
    described = None if (folder / DESCRIPTION).is_file() else read_peft(folder)
    config = read_config(folder).replace(**overrides) if described is None else foreign_config(folder, overrides)
    if described is not None and described.peft_type == "LORA":
        session = open_foreign(folder, config)
        require_same_base(folder, config.model, session.base_weights)
    else:
        session = open_session(config)
        require_same_base(folder, config.model, session.base_weights)
        restore_adapter(session.model, folder)
        require_same_seed(folder, config)
    session.model.eval()
    return TrainedSession(**{field.name: getattr(session, field.name) for field in dataclasses.fields(session)})


def read_config(folder: Path) -> RunConfig:
    """The configuration of the run that trained an adapter. Raises UserError where it cannot be read."""
    description = folder / DESCRIPTION
    try:
        config = RunConfig.from_record(read_description(folder).config)
        if config.max_source_len is None:
            field = RunConfig.model_fields["max_source_len"]
            raise UserError(f"an adapter of method '{config.method}' needs --max_source_len: {field.description}")
    except UserError as error:
        raise UserError(f"{description}: {error}") from error
    except (OSError, ValueError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise UserError(
            f"{description} cannot be read ({type(error).__name__}: {first_line(error)}); "
            'it should hold {"config": {option: value}} as the run wrote it'
        ) from error
    carried = folder / TASK_FILE
    if config.task_file is None or not carried.is_file():
        return config
    original = Path(config.task_file)  # beside which the data lie
    if original.is_file() and original.read_bytes() == carried.read_bytes():
        return config
    return config.replace(task_file=str(carried))
