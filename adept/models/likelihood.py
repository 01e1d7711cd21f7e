"""Logits of given targets, for both kinds of model: for the loss of training, and to score labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adept.models.capabilities import accepts
from adept.models.computed_prompt import ComputedPrompt
from adept.models.families import input_embedding_owner
from adept.models.recompute import expand_prompt_cache, prompt_cache


def decoder_inputs(model: nn.Module, labels: Tensor) -> Tensor:
    """[B, L]: what an encoder-decoder's decoder reads when it is to say `labels` [B, L]: its start token, then they.

    The start token is the one that generation starts with. labels: negative ids are padding.
    """
    special = model.generation_config
    return F.pad(
        labels.masked_fill(labels < 0, special.pad_token_id)[:, :-1], (1, 0), value=special.decoder_start_token_id
    )


def training_logits(model: nn.Module, batch: dict[str, Tensor], labels: Tensor, prefix: int, runs: int) -> Tensor:
    """[B, L, V]: the logits of the positions that predict `labels` [B, L].

    batch: {"input_ids", "attention_mask"} [B, T]; of a causal model also "logits_to_keep" [L], the positions. The first
    `prefix` tokens of a causal model's rows are the prompt, the same in each row of a run. They attend to nothing that
    follows, so their keys and values are computed once. The runs' rows are equal blocks of the batch.
    """
    if "logits_to_keep" not in batch:
        return model(**batch, decoder_input_ids=decoder_inputs(model, labels), use_cache=False).logits
    batch, rows = dict(batch), len(batch["input_ids"]) // runs
    if prefix:
        prompts = {name: batch[name][::rows, :prefix] for name in ("input_ids", "position_ids") if name in batch}
        if "position_ids" in batch:  # prompts of several lengths
            prompts["attention_mask"] = batch["attention_mask"][::rows, :prefix]
            batch["position_ids"] = batch["position_ids"][:, prefix:]
        keys = prompt_cache()
        model(**prompts, past_key_values=keys, use_cache=True, logits_to_keep=batch["logits_to_keep"].new_zeros(1))
        batch |= {"input_ids": batch["input_ids"][:, prefix:], "logits_to_keep": batch["logits_to_keep"] - prefix}
        batch["past_key_values"] = expand_prompt_cache(keys, rows)
    logits = model(**batch, use_cache=bool(prefix)).logits
    wanted = batch["logits_to_keep"]  # a few families return the logits of all positions
    return logits if logits.shape[1] == len(wanted) else logits[:, wanted]


def source_tokens(batch: dict[str, Tensor], labels: Tensor) -> Tensor:
    """[B, T]: which tokens of a training batch are neither padding nor the answer. batch, labels: of training_logits.

    Of rows without labels it means nothing.
    """
    is_token = batch["attention_mask"].bool()
    if "logits_to_keep" not in batch:  # the decoder reads the answer
        return is_token
    last = batch["logits_to_keep"][(labels >= 0).int().argmax(1)]  # [B]: what predicts the answer's first token
    return is_token & (torch.arange(is_token.shape[1], device=last.device) <= last[:, None])


def choice_logits(
    model: nn.Module,
    batch: dict[str, Tensor],
    choices: Tensor,
    *,
    with_cache: bool,
    prompt: ComputedPrompt | None = None,
) -> Tensor:
    """[B*C, L, V]: the logits of each choice's tokens after each source, the choices of a source one after the other.

    batch: {"input_ids", "attention_mask"} [B, T]; a causal model's rows are padded on the left. choices [C, L]: token
    ids; negative ids are padding, whose logits mean nothing. with_cache: the model's Capabilities.has_key_cache.
    prompt: what all rows begin with, if it is computed already.
    """
    rows, count = len(batch["input_ids"]), len(choices)
    targets = choices.repeat(rows, 1)  # [B*C, L]
    if model.config.is_encoder_decoder:
        return encoder_decoder_logits(model, batch, targets, count)
    answers = targets.clamp(min=0)  # padding after EOS is predicted but not counted
    if with_cache:
        return cached_logits(model, batch, answers, count, prompt)
    return uncached_logits(model, batch, answers, count)


def encoder_decoder_logits(model: nn.Module, batch: dict[str, Tensor], targets: Tensor, count: int) -> Tensor:
    """[B*C, L, V]: the encoder runs once a row."""
    encoded = model.get_encoder()(**batch)  # its own class of output: some decoders ask for more than its states
    encoded.last_hidden_state = encoded.last_hidden_state.repeat_interleave(count, dim=0)
    mask = batch["attention_mask"].repeat_interleave(count, dim=0)
    return model(
        encoder_outputs=encoded,
        attention_mask=mask,
        decoder_input_ids=decoder_inputs(model, targets),
        use_cache=False,
    ).logits


def cached_logits(
    model: nn.Module, batch: dict[str, Tensor], answers: Tensor, count: int, prompt: ComputedPrompt | None
) -> Tensor:
    """[B*C, L, V] for answers [B*C, L]: the source runs once a row, and its cache is repeated for each choice."""
    answers = answers[:, :-1]  # the last token predicts nothing
    computed, extra = 0, {}
    if prompt is not None:
        computed, batch = prompt.length, prompt.put_first(batch)
        extra["past_key_values"] = prompt.cache(len(answers) // count)
    mask = batch["attention_mask"].repeat_interleave(count, dim=0)
    positions = batch["attention_mask"].cumsum(dim=1) - 1
    # An index, because slicing would make torch copy the head B times.
    last = torch.tensor([positions.shape[1] - computed - 1], device=positions.device)
    prefill = model(
        input_ids=batch["input_ids"][:, computed:], attention_mask=batch["attention_mask"],
        position_ids=positions[:, computed:].clamp(min=0), use_cache=True, logits_to_keep=last, **extra,
    )  # fmt: skip
    prefill.past_key_values.batch_repeat_interleave(count)
    after = positions[:, -1:].repeat_interleave(count, dim=0) + 1 + torch.arange(answers.shape[1], device=last.device)
    continued = model(
        input_ids=answers, attention_mask=torch.cat([mask, torch.ones_like(answers)], dim=1), position_ids=after,
        past_key_values=prefill.past_key_values, use_cache=True,
    )  # fmt: skip
    return torch.cat([prefill.logits[:, -1:].repeat_interleave(count, dim=0), continued.logits], dim=1)


def uncached_logits(model: nn.Module, batch: dict[str, Tensor], answers: Tensor, count: int) -> Tensor:
    """cached_logits() for models without a cache of keys: source and choice pass through them together."""
    mask = batch["attention_mask"].repeat_interleave(count, dim=0)
    whole = {
        "input_ids": torch.cat([batch["input_ids"].repeat_interleave(count, dim=0), answers], dim=1),
        "attention_mask": torch.cat([mask, torch.ones_like(answers)], dim=1),
    }
    if accepts(model, "position_ids"):
        whole["position_ids"] = (whole["attention_mask"].cumsum(1) - 1).clamp(min=0)
    embedding = input_embedding_owner(model).get_input_embeddings()
    if getattr(embedding, "depends_on_row", False):
        embedding.is_source = torch.cat([mask, torch.zeros_like(answers)], dim=1)
    return model(**whole, use_cache=False).logits[:, -1 - answers.shape[1] : -1]


def virtual_prompt_logits(model: nn.Module, batch: dict[str, Tensor], answers: Tensor) -> Tensor:
    """[B, L, V]: the logits of answers [B, L] after the sources of a PEFT model that adds a prompt in its own forward.

    batch: {"input_ids", "attention_mask"} [B, T], of a causal model without padding.
    """
    if model.config.is_encoder_decoder:
        return training_logits(model, batch, answers, prefix=0, runs=1)
    ids = torch.cat([batch["input_ids"], answers], dim=1)
    return model(input_ids=ids, use_cache=False).logits[:, -1 - answers.shape[1] : -1]
