"""A trained run as an adapter of the PEFT library, over the unmodified base model.

A prompt or ADePT is a LoRA on the input embedding: f(E) of all tokens is relu(E W_down + b_1) [V, r] times W_up, plus
b_2, so of rank r + 1, exactly, and so is every TokenwiseOffset. A prompt row at the id of a token that no text has (its
host) is one rank more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from adept.base.errors import UserError
from adept.data.codec import Codec
from adept.methods.embedding import PromptedEmbedding
from adept.methods.offsets import TokenwiseOffset
from adept.models.families import input_embedding_owner, peft_task_type
from adept.models.loading import locate
from adept.models.plain import embedding_scale, name_of
from adept.serving.export.check import Behaviour, check_model, check_tokenizer, loaded_dtype, read_tokenizer, readable
from adept.serving.export.plain import generation_config, prompt_rows
from adept.serving.export.tokenizer import IdLayout, drop_chat_template, write_tokenizer
from adept.training.session import Session

WEIGHTS = "adapter_model.safetensors"


def write_adapter(session: Session, folder: Path, codec: Codec, layout: IdLayout, *, virtual: bool) -> None:
    """Writes the adapter, its tokenizer and its generation_config.

    layout: hosts() chooses it. virtual: a prompt as PEFT's PROMPT_TUNING, which needs no host. require_adapter() says
    whether the run can be one.
    """
    hook = session.prompted_embedding
    if hook is not None:
        (write_prompt_tuning if virtual else write_embedding_lora)(session, hook, folder, layout)
    else:
        adapter = session.model.peft_config["default"]
        adapter.base_model_name_or_path, adapter.task_type = base_name(session), task_type(session)
        session.model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's form to be filled in
    write_tokenizer(folder, codec, layout)
    generation_config(session).save_pretrained(folder)


def require_adapter(session: Session, *, virtual: bool) -> None:
    """Raises UserError for a run whose training is no adapter of PEFT's."""
    hook = session.prompted_embedding
    if session.method.trains_model:
        raise UserError(
            f"method '{session.config.method}' trains weights of the model itself, which is no adapter: --as plain"
        )
    if virtual and (hook is None or (hook.offset is not None and hook.use_offset)):
        raise UserError(
            "--as prompt_tuning holds a prompt and nothing else, as method pt trains it: --as peft holds more"
        )
    if (
        hook is not None
        and hook.offset is not None
        and hook.use_offset
        and not isinstance(hook.offset, TokenwiseOffset)
    ):
        raise UserError(
            f"{type(hook.offset).__name__} is no low-rank function of the token alone, so no LoRA can hold it; adept "
            "and pt can be exported so"
        )
    if hook is None and not hasattr(session.model, "peft_config"):
        raise UserError(
            f"method '{session.config.method}' trains no adapter that PEFT has; --as plain holds what transformers' "
            "own classes can"
        )


def base_name(session: Session) -> str:
    """The base model as from_pretrained() finds it: a hub id or a folder."""
    return locate(session.config.model)


def task_type(session: Session) -> str | None:
    """PEFT's. None for encoder-decoders, whose class in PEFT 0.21.0 does not load with transformers 5.23."""
    return peft_task_type(session.model) if session.capabilities.continues_source else None


@torch.no_grad()
def write_embedding_lora(session: Session, hook: PromptedEmbedding, folder: Path, layout: IdLayout) -> None:
    """Writes prompt and offset as a LoRA on the input embedding."""
    import peft

    name = name_of(session.model, hook)
    rows_a, rows_b = lora_of(hook, layout)
    scale = embedding_scale(hook.base)
    rank = rows_a.shape[1]
    peft.LoraConfig(
        r=rank, lora_alpha=rank, target_modules=[name], inference_mode=True,
        base_model_name_or_path=base_name(session), task_type=task_type(session),
    ).save_pretrained(folder)  # fmt: skip
    prefix = f"base_model.model.{name}.lora_embedding_"
    tensors = {f"{prefix}A": rows_a.T, f"{prefix}B": rows_b.T / scale}
    tensors = {key: tensor.float().cpu().contiguous() for key, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def lora_of(hook: PromptedEmbedding, layout: IdLayout) -> tuple[Tensor, Tensor]:
    """(A [V, R], B [R, D]): A B added to what the embedding returns for all ids is the hook, its prompt at the hosts.

    R = r + 1 + m. Where hosts lie behind the table, V counts them, and their rows are taken to be the table's mean.
    """
    ids = torch.arange(len(hook.weight), device=hook.weight.device).split(4096)
    embeds = torch.cat([hook.base(some).float() for some in ids])  # [V, D]
    if layout.rows > len(embeds):
        mean = embeds.mean(0, keepdim=True).to(hook.weight.dtype).float()  # as the resized table has it
        embeds = torch.cat([embeds, mean.expand(layout.rows - len(embeds), -1)])
    parts_a, parts_b = [], []
    if (offset := hook.offset) is not None and hook.use_offset:
        matrix, vector = offset.output()
        parts_a.append(torch.cat([offset.hidden(some) for some in embeds.split(4096)]))
        parts_b.append(matrix)
        if vector is not None:
            parts_a.append(embeds.new_ones(len(embeds), 1))
            parts_b.append(vector[None])
    prompt, hosts = prompt_rows(hook), list(layout.prompt_ids)
    one_hot = embeds.new_zeros(len(embeds), len(hosts))
    one_hot[hosts, torch.arange(len(hosts), device=embeds.device)] = 1
    for part in parts_a:
        part[hosts] = 0
    return torch.cat([*parts_a, one_hot], dim=1), torch.cat([*parts_b, prompt - embeds[hosts]])


def write_prompt_tuning(session: Session, hook: PromptedEmbedding, folder: Path, layout: IdLayout) -> None:
    """Writes the prompt as PEFT's PROMPT_TUNING, in front of the encoder alone in an encoder-decoder."""
    import peft

    prompt = prompt_rows(hook)
    peft.PromptTuningConfig(
        task_type=peft_task_type(session.model),
        num_virtual_tokens=len(prompt),
        token_dim=prompt.shape[1],
        num_transformer_submodules=1,
        inference_mode=True,
        base_model_name_or_path=base_name(session),
    ).save_pretrained(folder)
    safetensors.torch.save_file({"prompt_embeddings": prompt.float().cpu().contiguous()}, folder / WEIGHTS)


# Hosts ----------------------------------------------------------------------------------------------------------------


def hosts(session: Session, codec: Codec) -> IdLayout:
    """Where the prompt's rows go: to rows beyond the tokenizer, to reserved tokens, else behind a resized table.

    codec: without a prompt, for a model that adds it itself.
    Raises UserError for an encoder-decoder without enough of them.
    """
    rows, count = session.codec.table_rows[0], len(codec.prompt_ids)
    used = max(codec.tokenizer.get_vocab().values()) + 1
    free = [*range(used, rows), *reserved_ids(codec, rows)]
    if len(free) >= count:
        return IdLayout(tuple(free[:count]), rows, rows)
    if not session.capabilities.continues_source:
        raise UserError(
            f"{len(free)} ids of the model's tokenizer are free, fewer than the {count} rows of the prompt, and a "
            "table that encoder and decoder share cannot be resized for one of them: --as plain"
        )
    return IdLayout(tuple(range(rows, rows + count)), rows + count, rows)


def reserved_ids(codec: Codec, rows: int) -> list[int]:
    """Special tokens that neither texts nor the tokenizer's own forms hold: <extra_id_0>, <|reserved_...|>."""
    tokenizer = codec.tokenizer
    named = {token for token in tokenizer.special_tokens_map.values() if isinstance(token, str)}
    template = str(tokenizer.chat_template or "")
    form = {*codec.special_ids[0], *codec.special_ids[1], *codec.cue_ids}
    return [
        i
        for i, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and token.content not in named and token.content not in template and i not in form and i < rows
    ]


def require_unused(layout: IdLayout, tokenizer: Any, texts: list[str]) -> None:
    """Raises UserError where a text holds a token whose row the prompt takes."""
    names = [tokenizer.convert_ids_to_tokens(i) for i in layout.prompt_ids if i < len(tokenizer)]
    for text in texts:
        if found := next((name for name in names if name and name in text), None):
            raise UserError(
                f"the data hold the token {found}, whose row the prompt would take: {text!r:.60}; --as plain leaves "
                "every token its row"
            )


# Check ----------------------------------------------------------------------------------------------------------------


def load_adapter(session: Session, folder: Path, layout: IdLayout) -> nn.Module:
    """The base model with the adapter, as PEFT alone loads them."""
    import peft
    import transformers

    kind = (
        transformers.AutoModelForCausalLM
        if session.capabilities.continues_source
        else transformers.AutoModelForSeq2SeqLM
    )
    base = kind.from_pretrained(base_name(session), revision=session.config.model_revision, dtype=loaded_dtype(session))
    base.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    if layout.rows > layout.source_rows:
        add_mean_rows(base, layout)
    return peft.PeftModel.from_pretrained(base, folder).eval().to(session.device)


@torch.no_grad()
def add_mean_rows(base: nn.Module, layout: IdLayout) -> None:
    """Resizes the base's tables for the hosts, as the folder's README.md says."""
    base.resize_token_embeddings(layout.rows, mean_resizing=False)
    for table in (input_embedding_owner(base).get_input_embeddings(), base.get_output_embeddings()):
        table.weight[layout.source_rows :] = table.weight[: layout.source_rows].float().mean(0)


def check_adapter(
    session: Session, folder: Path, expected: Behaviour, layout: IdLayout, *, virtual: bool
) -> tuple[float, bool]:
    """(the largest difference of logits, whether chats are answered). Reads the folder with PEFT alone.

    Raises UserError where it does something else than the session did.
    """
    tokenizer = readable(read_tokenizer, folder)
    if not (chats := check_tokenizer(tokenizer, expected, layout)):
        drop_chat_template(folder)
    model = readable(load_adapter, session, folder, layout)
    found = check_model(session, model, tokenizer, expected, virtual_prompt=virtual)
    return found, chats and bool(tokenizer.chat_template)
