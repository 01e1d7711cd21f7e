"""A trained run, loaded to predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from adept.base.errors import UserError, first_line
from adept.config.run import RunConfig
from adept.data.example import Example
from adept.runs.adapter import DESCRIPTION, find_adapter, read_description, require_same_base, restore_adapter
from adept.training.evaluation import predict
from adept.training.session import Session, open_session


class TrainedSession(Session):
    """A session whose adapter has been trained."""

    def answer(self, sources: Sequence[str]) -> list[str]:
        """The predicted string for each source text, rendered as the task renders its rows ("review: ...")."""
        examples = [Example(str(i), source, "", ()) for i, source in enumerate(sources)]
        return predict(self, self.codec.encode(examples))


def load(name: str, *, results_dir: str = "results", **overrides) -> TrainedSession:
    """A trained run, ready to predict: `name` is a run id under results_dir or an adapter folder.

    overrides: options to change, such as device="cuda". Raises UserError when it cannot be read or does not fit.
    """
    folder = find_adapter(name, results_dir)
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
    config = config.replace(**overrides)
    session = open_session(config)
    require_same_base(folder, config.model, session.base_weights)
    restore_adapter(session.model, folder)
    session.model.eval()
    return TrainedSession(**{field.name: getattr(session, field.name) for field in dataclasses.fields(session)})
