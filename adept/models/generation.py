"""Generation as the protocol has it: greedy or sampled, and nothing of a checkpoint's own defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from adept.base.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from adept.models.computed_prompt import ComputedPrompt


def neutral_generation_config(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """The special ids that generation needs, and nothing else.

    generation_config.json and many model classes hold more: penalties, banned and forced tokens, least lengths, beams.
    Raises UserError for an encoder-decoder of which nothing says with which id the decoder starts.
    """
    from transformers import GenerationConfig

    start = decoder_start_id(model) if model.config.is_encoder_decoder else None
    return GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=start
    )


def decoder_start_id(model: PreTrainedModel) -> int:
    """The id that transformers' generate() starts the decoder with: the decoder's start token, else the BOS token."""
    for name in ("decoder_start_token_id", "bos_token_id"):
        for holder in (model.generation_config, model.config, model.config.get_text_config(decoder=True)):
            if isinstance(found := getattr(holder, name, None), int):
                return found
    raise UserError(
        f"nothing says with which token the decoder of {type(model).__name__} starts: "
        'put "decoder_start_token_id" into the config.json of --model'
    )


def generate_ids(
    model: PreTrainedModel,
    batch: dict[str, Tensor],
    max_new_tokens: int,
    sampling: dict[str, float] | None = None,
    *,
    beams: int = 1,
    synced_gpus: bool = False,
    prompt: ComputedPrompt | None = None,
) -> Tensor:
    """[B, L]: the ids of the answers alone, padded after their EOS.

    batch: {"input_ids", "attention_mask"} [B, T]; a causal model's rows are padded on the left. sampling:
    "temperature", "top_p" and "top_k"; None is greedy, or with beams > 1 a search. model.generation_config must be
    neutral_generation_config()'s. prompt: what all rows begin with, if it is computed already. Raises UserError for a
    model that cannot search (RWKV).
    """
    from transformers import GenerationConfig

    # An object, not arguments: with these, generate() refuses configs that hold generation options.
    chosen = GenerationConfig(
        do_sample=sampling is not None, num_beams=beams, max_new_tokens=max_new_tokens, **(sampling or {})
    )
    extra = {}
    if prompt is not None:
        batch, extra["past_key_values"] = prompt.put_first(batch), prompt.cache(beams * len(batch["input_ids"]))
    try:
        output = model.generate(**batch, **extra, generation_config=chosen, synced_gpus=synced_gpus)
    except ValueError as error:
        if beams == 1:
            raise
        raise UserError(f"--beams {beams}: {first_line(error)}") from error
    return answer_ids(model, batch, output)


def answer_ids(model: PreTrainedModel, batch: dict[str, Tensor], output: Tensor) -> Tensor:
    """[B, L]: what generate() has added to its input: without a causal model's source, or the decoder's start token."""
    return output[:, 1:] if model.config.is_encoder_decoder else output[:, batch["input_ids"].shape[1] :]
