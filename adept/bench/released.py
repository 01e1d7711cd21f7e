"""Training and evaluation as the released code computes them: padding, attention, logits, generation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adept.data.codec import Codec
from adept.data.example import IGNORED, Example
from adept.training.evaluation import generate
from adept.training.session import Session


@dataclass(frozen=True)
class ReleasedCodec(Codec):
    """Pads every source to the limit and every target to the longest.

    Rows of causal models have a label at every position, so that logits are computed at every position; most labels
    are IGNORED.
    """

    def train_batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        batch = labels_at_every_position(super().train_batch(examples))
        missing = self.max_target_len - batch["labels"].shape[1]
        return {**batch, "labels": F.pad(batch["labels"], (0, max(0, missing)), value=IGNORED)}


def labels_at_every_position(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch of Codec.train_batch as transformers' models take it: labels of causal models as wide as their inputs."""
    labels, positions = batch["labels"], batch.get("logits_to_keep")
    if positions is not None:
        labels = torch.full_like(batch["input_ids"], IGNORED)
        labels[:, positions + 1] = batch["shift_labels"]
    return {name: batch[name] for name in ("input_ids", "attention_mask")} | {"labels": labels}


def use_released_way(session: Session) -> Session:
    """The session with the released code's padding, attention and loss. Sets the attention of its model in place."""
    session.model.set_attn_implementation("eager")
    fields = {field.name: getattr(session.codec, field.name) for field in dataclasses.fields(session.codec)}
    codec = ReleasedCodec(**fields | {"multiple": session.codec.max_width})
    return dataclasses.replace(session, codec=codec, batch_losses=released_losses)


def released_losses(model: nn.Module, batch: dict[str, Tensor], *_) -> Tensor:
    """[1]: the loss that the model itself computes from the labels."""
    return model(**{name: tensor for name, tensor in batch.items() if name != "targets"}).loss[None]


@torch.no_grad()
def released_predict(session: Session, examples: list[Example]) -> list[str]:
    """The predicted strings, in the order of the examples.

    Each batch is generated with up to --max_new_tokens and then passes through the model again for the evaluation loss.
    """
    session.model.eval()
    texts, size = [], session.config.eval_batch_size
    for start in range(0, len(examples), size):
        rows = examples[start : start + size]
        source, labelled = (
            {name: ids.to(session.device) for name, ids in make_batch(rows).items()}
            for make_batch in (session.codec.source_batch, session.codec.train_batch)
        )
        texts += generate(session, source)
        session.model(**labelled).loss.item()
    session.model.train()
    return texts
