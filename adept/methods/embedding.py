"""The one hook: an input embedding whose ids >= V address a trainable prompt and whose other rows may carry an offset.

PT, DePT and ADePT (Eq. 1-4) are this module with no offset, a PositionOffset or a TokenOffset. Where the prompt is not
trained as it is, a PromptSource makes it. Masks, labels, positions, `forward`, `generate` and caching stay the model's
own, because the prompt is ordinary ids in the input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adept.methods.prompt_sources import PromptSource


class PromptedEmbedding(nn.Module):
    """Input embedding whose ids >= V address a trainable prompt and whose other rows may carry an offset.

    `base` [V, D] stays frozen and may be shared with a decoder or a tied head, which never see prompt or offset. The
    sums are formed in the trained parameters' dtype and returned in the base's, or in `returns` where the base is
    trained in another than the model computes in.
    """

    returns: torch.dtype | None = None

    is_source: Tensor | None = None
    """[B, T] of the next forward pass, for a prompt that depends on the row: its tokens but for padding and answer.

    Who passes rows with their answers to the model says so here; else it is the attention mask (set_input_embedding).
    """

    def __init__(
        self,
        base: nn.Embedding,
        prompt: Tensor | PromptSource,
        offset: nn.Module | None = None,
        *,
        use_offset: bool = True,
    ):
        """prompt: [m, D] with m >= 0, which is trained as it is, or what makes the prompt.

        offset maps (embeds [B, T, D], is_prompt [B, T]) to [B, T, D]. use_offset=False leaves the offset out
        (Table 11), but keeps its parameters.
        """
        super().__init__()
        self.base = base
        self.source = prompt if isinstance(prompt, PromptSource) else None
        plain = self.source is None and len(prompt) > 0
        self.prompt = nn.Parameter(prompt.detach().clone().float()) if plain else None  # [m, D]
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

    @property
    def depends_on_row(self) -> bool:
        """Whether each row has a prompt of its own."""
        return self.source is not None and self.source.instance

    def prompt_table(self) -> Tensor | None:
        """[m, D]: the prompt as it is now, part of the graph; None where there is none.

        Raises TypeError for a prompt that depends on the row.
        """
        if self.source is None:
            return self.prompt
        if self.depends_on_row:
            raise TypeError(f"the prompt of {type(self.source).__name__} depends on the row: there is no one table")
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.source()

    def parts(self, ids: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """ids [B, T] -> (E [B, T, D], its offset [B, T, D] or None, is_prompt [B, T]).

        E and offset mean nothing where is_prompt is true.
        """
        is_prompt = ids >= self.vocab_size
        embeds = self.base(ids.masked_fill(is_prompt, 0))
        if self.offset is None or not self.use_offset:
            return embeds, None, is_prompt
        embeds = unrounded(embeds)
        return embeds, self.offset(embeds, is_prompt), is_prompt

    def prompt_rows(self, ids: Tensor, embeds: Tensor, is_prompt: Tensor) -> Tensor | None:
        """[B, T, D]: each prompt id's row of the prompt. What stands at other ids means nothing; None: no prompt.

        ids [B, T], with embeds and is_prompt of parts().
        """
        index = (ids - self.vocab_size).clamp(min=0)
        if self.source is None:
            return None if self.prompt is None else F.embedding(index, self.prompt)
        # A decode step needs no prompt. In training nobody asks, because the answer would stall a GPU.
        if not self.training and not is_prompt.any():
            self.is_source = None
            return None
        if not self.depends_on_row:
            return F.embedding(index, self.source())
        is_source, self.is_source = self.is_source, None
        is_token = ~is_prompt if is_source is None else ~is_prompt & is_source.bool()
        prompts = self.source(unrounded(embeds), is_token)  # [B, m, D]
        return prompts.take_along_dim(index.remainder(prompts.shape[1])[..., None], dim=1)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, T] in [0, V + m) -> embeddings [B, T, D]."""
        # Prompt and offset are the model's input and cheap: autocast would round them for nothing.
        with torch.autocast(ids.device.type, enabled=False):
            embeds, offset, is_prompt = self.parts(ids)
            rows = self.prompt_rows(ids, embeds, is_prompt)
            if offset is not None:
                embeds = embeds + offset
            if rows is not None:
                embeds = torch.where(is_prompt[..., None], rows.to(embeds.dtype), embeds)
        return embeds.to(self.returns or self.weight.dtype)

    def forget(self) -> None:
        """Drops what an offset remembers for the next decode step, and what a prompt was told of its rows.

        To a compiled forward it would be an input that changes.
        """
        self.is_source = None
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
        if not getattr(self.offset, "of_token_alone", False):
            raise TypeError(
                "only an offset of the token alone (ADePT's) folds into the embedding table, "
                f"not {type(self.offset).__name__}"
            )
        was_training, dtype = self.offset.training, next(self.offset.parameters()).dtype
        self.offset.eval()  # without dropout
        ids = torch.arange(self.vocab_size, device=self.weight.device).split(4096)
        pieces = (self.base(some).to(dtype) for some in ids)
        table = torch.cat([(rows + self.offset(rows, None)).to(self.weight.dtype) for rows in pieces])
        self.offset.train(was_training)
        self.base = nn.Embedding.from_pretrained(table, freeze=True)
        self.offset = None


def unrounded(embeds: Tensor) -> Tensor:
    """The embeddings in fp32 where they are in half precision."""
    return embeds.float() if embeds.dtype in (torch.bfloat16, torch.float16) else embeds


def set_input_embedding(owner: nn.Module, prompted: PromptedEmbedding) -> None:
    """Makes `prompted` the input embedding of `owner`.

    A prompt that depends on the row must not depend on the padding, of which an embedding sees only ids that may be a
    text's. So the owner shows it the mask.
    """
    owner.set_input_embeddings(prompted)
    if prompted.depends_on_row:
        owner.register_forward_pre_hook(show_mask, with_kwargs=True)


def show_mask(owner: nn.Module, arguments: tuple, keywords: dict) -> None:
    """A forward pre-hook, which gives the input embedding the attention mask unless it knows its rows' tokens already.

    Raises TypeError where the mask may be hidden or is no [B, S].
    """
    mask, embedding = keywords.get("attention_mask"), owner.get_input_embeddings()
    if len(arguments) > 1 or (mask is not None and mask.dim() != 2):
        raise TypeError("a prompt that depends on the row needs the keyword attention_mask, [B, S]")
    if embedding.is_source is None and mask is not None and "input_ids" in keywords:
        embedding.is_source = mask[:, -keywords["input_ids"].shape[1] :]  # a decode step has those before it, too


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
