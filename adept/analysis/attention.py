"""How a method changes the first layer's attention (Section 3.4, Eq. 5-7; Appendix A, Eq. 8)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adept.base.errors import UserError
from adept.data.example import Example
from adept.models.loading import first_layer_attention
from adept.training.session import Session

FILLER_TEXT, FILLER_TOKENS = " and so on, and so forth", 16
"""The "meaningless sequence" of Section 3.2, which is repeated to this many tokens."""

MIN_ATTENTION = 1e-30
"""Sums of attention weights below this are not used as divisors: they have lost digits in fp32."""


@contextlib.contextmanager
def without_offset(session: Session) -> Iterator[None]:
    """Inside the context, the model gets the trained prompt but no offset (Table 11).

    Raises UserError for a method without offset.
    """
    hook = session.prompted_embedding
    if hook is None or hook.offset is None:
        raise UserError(f"method '{session.config.method}' has no offset to leave out; 'dept' and 'adept' have one")
    before, hook.use_offset = hook.use_offset, False
    try:
        yield
    finally:
        hook.use_offset = before


@dataclass(frozen=True)
class AttentionPattern:
    """The first layer's attention of one text's n content tokens, which are neither prompt nor filler."""

    relative: Tensor
    """[H, n, n]: attention of each content token to the content, normalised so that rows sum to 1, which drops the
    factor 1 - sum_k A_i,p_k of Eq. 6. nan where the prompt leaves the content less than MIN_ATTENTION."""
    prompt: Tensor
    """[H, n, m]: A_i,p_k, attention of each content token to the prompt."""
    embeds: Tensor
    """[n, D]: the embeddings E."""
    offset: Tensor | None
    """[n, D]: what the method adds to E."""


@torch.no_grad()
def first_layer_patterns(
    session: Session, texts: Sequence[str], *, adapted: bool = True, filler: Sequence[int] = ()
) -> list[AttentionPattern]:
    """The attention of each text in the model's own forward pass.

    adapted=False: in the frozen model, without prompt and offset. filler: ids to put between prompt and text.
    Raises UserError for a method without a prompted embedding.
    """
    hook = session.prompted_embedding
    if hook is None:
        raise UserError(
            f"method '{session.config.method}' does not act in the input embedding; 'pt', 'dept' and 'adept' do"
        )
    prompt = session.codec.prompt_ids if adapted else ()
    leave_out = not adapted and hook.offset is not None
    was_training = session.model.training
    session.model.eval()
    patterns = []
    with without_offset(session) if leave_out else contextlib.nullcontext():
        for example in session.codec.encode([Example(str(i), text, "", ()) for i, text in enumerate(texts)]):
            ids = torch.tensor([[*prompt, *filler, *example.source_ids]], device=session.device)  # [1, T]
            start = len(prompt) + len(filler)
            weights = first_layer_attention(session.model, ids)[0, :, start:].float().cpu()  # [H, n, T]
            content = weights[..., start:]
            total = content.sum(-1, keepdim=True)
            embeds, offset, _ = hook.parts(ids)
            patterns.append(
                AttentionPattern(
                    relative=content / total.where(total > MIN_ATTENTION, torch.nan),
                    prompt=weights[..., : len(prompt)],
                    embeds=embeds[0, start:].cpu(),
                    offset=None if offset is None else offset[0, start:].cpu(),
                )
            )
    session.model.train(was_training)
    return patterns


def attention_distance(one: Sequence[AttentionPattern], other: Sequence[AttentionPattern]) -> Tensor:
    """[H, N]: total variation distance between the relative attention of the same N queries.

    The first token of each text is left out: under a causal mask it attends to no content but itself.
    """
    distances = [(a.relative - b.relative).abs().sum(-1)[:, 1:] / 2 for a, b in zip(one, other, strict=True)]
    return torch.cat(distances, dim=1)


def summarize_heads(values: Tensor) -> dict:
    """[H, N] -> {"mean", "min", "max": of all, "heads", "spreads": each head's mean and standard deviation over its
    queries, "undefined": the number of nan, which are left out of the others}."""
    rows = values.double().numpy()
    return {
        "mean": np.nanmean(rows).item(),
        "min": np.nanmin(rows).item(),
        "max": np.nanmax(rows).item(),
        "heads": np.nanmean(rows, axis=1).tolist(),
        "spreads": np.nanstd(rows, axis=1).tolist(),
        "undefined": int(np.isnan(rows).sum()),
    }


def measure_attention(session: Session, texts: Sequence[str], *, adapted: bool = True) -> dict:
    """Measures what a method does to the first layer's attention; adapted=False: measures the frozen model itself.

    change: distance between the relative attention and the frozen model's (Eq. 6: 0 for PT; Eq. 7, 8: above 0 for
    ADePT and DePT).
    moved: distance between the relative attention without and with FILLER_TOKENS meaningless tokens before the text
    (Section 3.2: 0 except for DePT).
    prompt: sum_k A_i,p_k, the coefficient in Eq. 6. mixture: distance between a query's attention among the prompt's
    tokens and the mean of its head. Both only where there is a prompt.
    offset_size: mean norm of the offsets over the mean norm of E. offset_moved: mean norm of the offsets' change when
    the text moves, over the mean norm of the offsets. Both only where there is an offset.
    """
    ids = session.codec.ids(FILLER_TEXT, special=False)
    filler = [ids[i % len(ids)] for i in range(FILLER_TOKENS)]
    frozen = first_layer_patterns(session, texts, adapted=False)
    plain = first_layer_patterns(session, texts, adapted=adapted)
    moved = first_layer_patterns(session, texts, adapted=adapted, filler=filler)
    measures = {
        "change": summarize_heads(attention_distance(frozen, plain)),
        "moved": summarize_heads(attention_distance(plain, moved)),
    }
    prompt = torch.cat([pattern.prompt[:, 1:] for pattern in plain], dim=1)  # [H, N, m]
    if prompt.shape[-1]:
        weight = prompt.sum(-1)
        mixture = prompt / weight.where(weight > MIN_ATTENTION, torch.nan)[..., None]
        measures["prompt"] = summarize_heads(weight)
        measures["mixture"] = summarize_heads((mixture - mixture.nanmean(1, keepdim=True)).abs().sum(-1) / 2)
    if plain[0].offset is not None:
        embeds = torch.cat([pattern.embeds for pattern in plain])
        offset, moved_offset = (torch.cat([pattern.offset for pattern in patterns]) for patterns in (plain, moved))
        size = offset.norm(dim=-1).mean()
        measures["offset_size"] = (size / embeds.norm(dim=-1).mean()).item()
        measures["offset_moved"] = ((moved_offset - offset).norm(dim=-1).mean() / size).item()
    return measures
