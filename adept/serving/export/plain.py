"""A trained run as a plain folder: what save_pretrained() of a transformers model and a tokenizer writes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adept.base.errors import UserError
from adept.data.codec import Codec
from adept.methods.embedding import PromptedEmbedding
from adept.methods.offsets import PositionOffset
from adept.models.families import input_embedding_owner
from adept.models.plain import PlainModel, add_to_positions, embedding_scale, plain_model
from adept.serving.export.check import (
    Behaviour,
    check_model,
    check_tokenizer,
    loaded_dtype,
    read_tokenizer,
    readable,
)
from adept.serving.export.tokenizer import IdLayout, drop_chat_template, write_tokenizer
from adept.training.evaluation import max_new_tokens
from adept.training.session import Session

if TYPE_CHECKING:
    from transformers import GenerationConfig


def write_plain(session: Session, folder: Path, codec: Codec, *, compact: bool) -> IdLayout:
    """Writes the model with the prompt and the offset in its tables, and the tokenizer that puts the prompt in front.

    The session's model is taken apart. Raises UserError for what transformers' classes cannot hold.
    """
    source_rows = session.codec.table_rows[0]
    made = take_apart(session, compact)
    count = len(codec.prompt_ids)
    layout = IdLayout(tuple(range(made.rows - count, made.rows)), made.rows, source_rows, made.shift)
    write_tokenizer(folder, codec, layout)  # first: it may be refused, and the model is large
    silent = range(source_rows, made.rows) if not made.shift else ()
    made.model.generation_config = generation_config(session, silent)
    made.model.save_pretrained(folder)
    return layout


@torch.no_grad()
def take_apart(session: Session, compact: bool) -> PlainModel:
    """The session's model without anything of this project's in it."""
    model, hook = session.model, session.prompted_embedding
    if hasattr(model, "peft_config"):
        if not hasattr(model, "merge_and_unload"):
            raise UserError(f"what method '{session.config.method}' trains has no place among the weights: --as peft")
        model = model.merge_and_unload()
    if hook is None:
        return plain_model(model, no_rows(model), compact=compact)
    prompt, scale = prompt_rows(hook), embedding_scale(hook.base)
    base, table = hook.base, None
    if hook.use_offset and isinstance(hook.offset, PositionOffset):
        add_to_positions(model, hook.offset.rows(), len(prompt))
    elif hook.use_offset and hook.offset is not None:
        table = folded_table(hook) / scale
    input_embedding_owner(model).set_input_embeddings(base)
    return plain_model(model, prompt / scale, table, compact=compact)


def no_rows(model: nn.Module) -> Tensor:
    """[0, 1]: no prompt."""
    return next(model.parameters()).new_zeros(0, 1)


def prompt_rows(hook: PromptedEmbedding) -> Tensor:
    """[m, D]: what the model sees for the prompt's ids. Raises UserError for a prompt that depends on the row."""
    try:
        table = hook.prompt_table()
    except TypeError as error:
        raise UserError(f"{error}: no folder of transformers or PEFT can hold it") from error
    return hook.weight.new_zeros(0, hook.weight.shape[1]) if table is None else table.detach()


def folded_table(hook: PromptedEmbedding) -> Tensor:
    """[V, D]: E' = E + f(E), as the model sees it. The hook is folded afterwards.

    Raises UserError for an offset that depends on more than the token.
    """
    try:
        hook.fold()
    except TypeError as error:
        raise UserError(
            f"{type(hook.offset).__name__} is an offset of more than the token, which no embedding table can hold; "
            "adept and pt can be exported"
        ) from error
    return hook.base.weight


def generation_config(session: Session, silent: range | tuple[int, ...] = ()) -> GenerationConfig:
    """Greedy answers of the run's length. silent: ids that are never to be drawn where someone samples."""
    config = copy.deepcopy(session.model.generation_config)
    config.update(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens(session),
        suppress_tokens=[*silent] or None,
    )
    return config


def check_plain(session: Session, folder: Path, expected: Behaviour, layout: IdLayout) -> tuple[float, bool]:
    """(the largest difference of logits, whether chats are answered). Reads the folder with transformers alone.

    Raises UserError where it does something else than the session did.
    """
    import transformers

    tokenizer = readable(read_tokenizer, folder)
    if not (chats := check_tokenizer(tokenizer, expected, layout)):
        drop_chat_template(folder)
    causal = session.capabilities.continues_source
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForSeq2SeqLM
    model = readable(kind.from_pretrained, folder, dtype=loaded_dtype(session)).eval().to(session.device)
    return check_model(session, model, tokenizer, expected), chats and bool(tokenizer.chat_template)
