"""The one hook: an input embedding whose ids >= V address a trainable prompt and whose other rows may carry an offset.

PT, DePT and ADePT (Eq. 1-4) are this module with no offset, a PositionOffset or a TokenOffset. Masks, labels,
positions, `forward`, `generate` and caching stay the model's own, because the prompt is ordinary ids in the input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adept.methods.offsets import TokenOffset


class PromptedEmbedding(nn.Module):
    """Input embedding whose ids >= V address a trainable prompt and whose other rows may carry an offset.

    `base` [V, D] stays frozen and may be shared with a decoder or a tied head, which never see prompt or offset. The
    sums are formed in the trained parameters' dtype and returned in the base's, or in `returns` where the base is
    trained in another than the model computes in.
    """

    returns: torch.dtype | None = None

    def __init__(self, base: nn.Embedding, prompt: Tensor, offset: nn.Module | None = None, *, use_offset: bool = True):
        """prompt [m, D] with m >= 0; offset maps (embeds [B, T, D], is_prompt [B, T]) to [B, T, D].

        use_offset=False leaves the offset out (Table 11), but keeps its parameters.
        """
        super().__init__()
        self.base = base
        self.prompt = nn.Parameter(prompt.detach().clone().float()) if len(prompt) else None  # [m, D]
        self.offset = offset
        self.use_offset = use_offset

    @property
    def weight(self) -> Tensor:
        """The base table: transformers reads dtype and device (and ties heads) through this name."""
        return self.base.weight

    @property
    def vocab_size(self) -> int:
        """V, the id of the first prompt row."""
        return len(self.weight)

    def prompt_table(self) -> Tensor | None:
        """[m, D]: the prompt as the model sees it; None where there is none."""
        return self.prompt

    def parts(self, ids: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """ids [B, T] -> (E [B, T, D], its offset [B, T, D] or None, is_prompt [B, T]).

        E and offset mean nothing where is_prompt is true.
        """
        is_prompt = ids >= self.vocab_size
        embeds = self.base(ids.masked_fill(is_prompt, 0))
        if self.offset is None or not self.use_offset:
            return embeds, None, is_prompt
        embeds = embeds.float() if embeds.dtype in (torch.bfloat16, torch.float16) else embeds
        return embeds, self.offset(embeds, is_prompt), is_prompt

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, T] in [0, V + m) -> embeddings [B, T, D]."""
        # Prompt and offset are the model's input and cheap: autocast would round them for nothing.
        with torch.autocast(ids.device.type, enabled=False):
            embeds, offset, is_prompt = self.parts(ids)
            if offset is not None:
                embeds = embeds + offset
            if self.prompt is not None:
                rows = F.embedding((ids - self.vocab_size).clamp(min=0), self.prompt)  # [B, T, D]
                embeds = torch.where(is_prompt[..., None], rows.to(embeds.dtype), embeds)
        return embeds.to(self.returns or self.weight.dtype)

    def forget(self) -> None:
        """Drops what an offset remembers for the next decode step.

        To a compiled forward it would be an input that changes.
        """
        if hasattr(self.offset, "forget"):
            self.offset.forget()

    @torch.no_grad()
    def fold(self) -> None:
        """Puts E' = E + f(E) in place of the network: exact, one pass over the vocabulary, and a table of its own.

        Raises TypeError for an offset that depends on more than the token (DePT's).
        """
        if not self.use_offset:
            self.offset = None
            return
        if not isinstance(self.offset, TokenOffset):
            raise TypeError(
                f"only a TokenOffset (ADePT) folds into the embedding table, not {type(self.offset).__name__}"
            )
        dropout, self.offset.dropout.p = self.offset.dropout.p, 0.0
        ids = torch.arange(self.vocab_size, device=self.weight.device).split(4096)
        pieces = (self.base(some).to(self.offset.w_up.dtype) for some in ids)
        table = torch.cat([(rows + self.offset(rows, None)).to(self.weight.dtype) for rows in pieces])
        self.offset.dropout.p = dropout
        self.base = nn.Embedding.from_pretrained(table, freeze=True)
        self.offset = None


def prompt_from_vocab(embedding: nn.Module, length: int, most_frequent: int) -> Tensor:
    """[length, D]: embeddings drawn from the `most_frequent` first ids.

    "randomly sampled top vocabularies", Section 4.1; T5's and BPE's vocabularies are ordered by frequency.
    """
    rows = min(most_frequent, len(embedding.weight))
    # Ids are drawn again only when there are more prompt rows than ids.
    return embed_ids(embedding, torch.randperm(rows).repeat(-(-length // rows))[:length])


def prompt_from_ids(embedding: nn.Module, length: int, ids: list[int]) -> Tensor:
    """[length, D]: the embeddings of a text's ids, repeated to the length (released code; its EOS is repeated too)."""
    return embed_ids(embedding, torch.tensor([ids[i % len(ids)] for i in range(length)], dtype=torch.long))


@torch.no_grad()
def embed_ids(embedding: nn.Module, ids: Tensor) -> Tensor:
    """[N, D] in fp32: what the model sees for ids [N]. Some families scale or normalise in the embedding's forward."""
    return embedding(ids.to(embedding.weight.device)).float()


def random_prompt(table: Tensor, length: int) -> Tensor:
    """[length, D] ~ N(0, 1), nn.Embedding's default (the released code's PT)."""
    return torch.randn(length, table.shape[1], device=table.device)
