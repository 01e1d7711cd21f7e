"""A trained run, loaded to predict."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

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
from adept.runs.peft_files import PeftDescription, read_peft
from adept.serving.peft_folders import foreign_config, open_foreign
from adept.serving.rendering import Source, source_text
from adept.training.evaluation import label_scores, predict
from adept.training.session import Session, open_session


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a run says. probabilities: {label: its probability among the labels}, None where nothing asked for them."""

    text: str
    probabilities: dict[str, float] | None = None


class TrainedSession(Session):
    """A session whose adapter has been trained."""

    @overload
    def answer(self, sources: Source, beams: int = 1) -> str: ...

    @overload
    def answer(self, sources: Sequence[Source], beams: int = 1) -> list[str]: ...

    def answer(self, sources, beams=1):
        """The predicted string of one source, or of each of a list. beams: of a search in place of greedy decoding.

        Raises UserError for what is no source, naming the column that a row lacks.
        """
        if isinstance(sources, str | Mapping):
            return self.answer([sources], beams)[0]
        return [answer.text for answer in self.answers(sources, beams)]

    @overload
    def label_probabilities(self, sources: Source) -> dict[str, float]: ...

    @overload
    def label_probabilities(self, sources: Sequence[Source]) -> list[dict[str, float]]: ...

    def label_probabilities(self, sources):
        """{label: probability among the labels} of one source, or of each of a list.

        Raises UserError where the task has no labels, and as answer() does.
        """
        if isinstance(sources, str | Mapping):
            return self.label_probabilities([sources])[0]
        self.require_labels()
        return [self.probabilities(scores) for scores in label_scores(self, self.encode(sources))]

    def answers(self, sources: Sequence[Source], beams: int = 1, *, probabilities: bool = False) -> list[Answer]:
        """The answer to each source. probabilities: with those of the labels also where it is generated.

        Raises UserError as answer() and label_probabilities() do.
        """
        if not len(sources):
            return []
        examples, likelihood = self.encode(sources), self.config.scoring == "likelihood"
        if probabilities:
            self.require_labels()
        scores = label_scores(self, examples) if likelihood or probabilities else []
        if likelihood:
            return [self.most_likely(own) for own in scores]
        texts = predict(self, examples, beams=beams)
        found = map(self.probabilities, scores) if probabilities else itertools.repeat(None)
        return [Answer(text, own) for text, own in zip(texts, found, strict=False)]

    def most_likely(self, scores: Sequence[float]) -> Answer:
        """The answer by likelihood, of the labels' log-probabilities."""
        return Answer(self.task.labels[scores.index(max(scores))], self.probabilities(scores))

    def probabilities(self, scores: Sequence[float]) -> dict[str, float]:
        """{label: probability among the labels}, of the labels' log-probabilities."""
        return dict(zip(self.task.labels, torch.tensor(scores).softmax(-1).tolist(), strict=True))

    def require_labels(self) -> None:
        """Raises UserError where the task has no labels."""
        if self.task.labels is None:
            raise UserError(f"task '{self.task.name}' has free targets, so its answers have no label probabilities")

    def encode(self, sources: Sequence[Source]) -> list[Example]:
        """The sources as token ids."""
        examples = [Example(str(i), self.render(i, source), "", ()) for i, source in enumerate(sources)]
        return self.codec.encode(examples)

    def render(self, number: int, source: Source) -> str:
        """The text of a source. Raises UserError, which names its number, where it has none."""
        if not isinstance(source, str | Mapping):
            raise UserError(f"source {number} is {source!r:.40}; it must be a text or a row, {{column: value}}")
        try:
            return source_text(self.task, source)
        except UserError as error:
            raise UserError(f"source {number}: {error}") from error


def load(name: str, *, results_dir: str = "results", **overrides) -> TrainedSession:
    """A trained run, ready to predict: `name` is a run id under results_dir or an adapter folder.

    overrides: options to change, such as device="cuda". The adapter of a task of the user's own carries its task file.
    A folder of PEFT's (prompt tuning, LoRA) and one that DePT's authors released do not say their task: task="rte".
    Raises UserError when it cannot be read or does not fit.
    """
    folder = find_adapter(name, results_dir)
    config = config_with(folder, overrides)
    described = foreign(folder)
    if described is not None and described.peft_type == "LORA":
        session = open_foreign(folder, config)
        require_same_base(folder, config.model, session.base_weights)
        return answering(session)
    return restored(open_session(config), folder)


def foreign(folder: Path) -> PeftDescription | None:
    """What a PEFT folder says of its adapter; None for a folder of a run of ours."""
    return None if (folder / DESCRIPTION).is_file() else read_peft(folder)


def config_with(folder: Path, overrides: Mapping[str, Any]) -> RunConfig:
    """The configuration of an adapter folder with some options changed. Raises UserError as read_config() does."""
    return read_config(folder).replace(**overrides) if foreign(folder) is None else foreign_config(folder, overrides)


def restored(session: Session, folder: Path) -> TrainedSession:
    """The session with the trained parameters of an adapter folder. Raises UserError where they do not fit."""
    require_same_base(folder, session.config.model, session.base_weights)
    restore_adapter(session.model, folder)
    require_same_seed(folder, session.config)
    return answering(session)


def answering(session: Session) -> TrainedSession:
    """The session as one that answers, with the weights that it has."""
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
