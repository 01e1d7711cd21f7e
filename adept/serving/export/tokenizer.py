"""A tokenizer that puts a prompt in front of every text, and a cue behind it, without this project's code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adept.base.errors import UserError
from adept.data.codec import Codec

if TYPE_CHECKING:
    import tokenizers

TARGET_MARK = "\ue000"
"""In front of a target's token in a byte-pair vocabulary where the token itself has the source's id.

Decoding drops it.
"""


@dataclass(frozen=True)
class IdLayout:
    """Which ids a folder's tokenizer gives to a prompt and to a source."""

    prompt_ids: tuple[int, ...]
    """[m]; empty where the folder's model adds the prompt itself."""
    rows: int
    """Rows of the folder's input embedding: the tokenizer has a token for each, up to the last prompt id."""
    source_rows: int
    """V, the rows of the base model's table."""
    shift: int = 0
    """Added to the ids of a source; those of an answer stay."""

    def translate(self, ids: Iterable[int]) -> list[int]:
        """The folder's ids of a session's ids, in which the prompt begins at V."""
        prompt, first = self.prompt_ids, self.source_rows
        return [i + self.shift if i < first else prompt[i - first] for i in ids if i < first or prompt]


def write_tokenizer(folder: Path, codec: Codec, layout: IdLayout) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which AutoTokenizer of transformers 4 and 5 loads.

    `tokenizer(text)` then gives the codec's ids: prompt, source, cue. A chat template says the same in text, where the
    model continues its source. codec: its cue "" leaves the cue out.

    Raises UserError for a tokenizer that cannot be changed so.
    """
    data = backend_json(codec.tokenizer)
    shift = layout.shift
    backend = from_json(shifted(data, shift) if shift else data)
    name_prompt(backend, layout)
    first, last = codec.special_ids
    before, after = [*layout.prompt_ids, *(i + shift for i in first)], [i + shift for i in (*codec.cue_ids, *last)]
    backend.post_processor = template(backend, before, after)
    backend.save(str(folder / "tokenizer.json"))
    special = {name: str(token) for name in SPECIAL if (token := getattr(codec.tokenizer, name, None)) is not None}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # families' own classes put a template of theirs in its place
        "model_max_length": len(layout.prompt_ids) + codec.max_source_len,
        "padding_side": codec.padding_side,
        "truncation_side": "left" if codec.cue is None else "right",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    if codec.padding_side == "left":
        settings["chat_template"] = chat_template(backend, before, codec.cue)
    write_settings(folder, settings)


SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes tokenizer_config.json."""
    text = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def drop_chat_template(folder: Path) -> None:
    """Takes the chat template out, so that a chat is refused and not answered in another way."""
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_settings(folder, {name: value for name, value in settings.items() if name != "chat_template"})


def backend_json(tokenizer: Any) -> dict[str, Any]:
    """The content of tokenizer.json. Raises UserError for a tokenizer that has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        raise UserError(f"{type(tokenizer).__name__} has no tokenizer.json, which an exported folder needs")
    return json.loads(backend.to_str()) | {"truncation": None, "padding": None}


def from_json(data: dict[str, Any]) -> tokenizers.Tokenizer:
    import tokenizers

    return tokenizers.Tokenizer.from_str(json.dumps(data))


def name_prompt(backend: tokenizers.Tokenizer, layout: IdLayout) -> None:
    """Adds special tokens for the ids that have none, up to the last prompt id.

    Raises UserError where an id is taken.
    """
    import tokenizers

    if not layout.prompt_ids:
        return
    vocabulary = backend.get_vocab(with_added_tokens=True)
    numbers = {row: number for number, row in enumerate(layout.prompt_ids)}
    start, mark = max(vocabulary.values()) + 1, "prompt"
    while f"<|{mark}_0|>" in vocabulary:  # the base is an exported folder itself
        mark += "_"
    names = {
        row: f"<|{mark}_{numbers[row]}|>" if row in numbers else f"<|{mark}_unused_{row}|>"
        for row in range(start, max(layout.prompt_ids) + 1)
    }
    backend.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in names.values()])
    wrong = [row for row, name in names.items() if backend.token_to_id(name) != row]
    if wrong or any(start > row and backend.id_to_token(row) is None for row in layout.prompt_ids):
        raise UserError(
            f"the tokenizer's ids, which end at {start - 1:,}, leave no room for a prompt at {layout.prompt_ids[0]:,} "
            f"to {layout.prompt_ids[-1]:,}: --as prompt_tuning needs none"
        )


def template(backend: tokenizers.Tokenizer, before: Sequence[int], after: Sequence[int]) -> Any:
    """The post-processor that puts ids before and after every text, and around a pair of texts."""
    import tokenizers

    names = {"<|before|>": before, "<|after|>": after}
    special = [
        {"id": name, "ids": [*ids], "tokens": [backend.id_to_token(i) or "" for i in ids]}
        for name, ids in names.items()
        if ids
    ]
    start, end = ("<|before|> " if before else ""), (" <|after|>" if after else "")
    return tokenizers.processors.TemplateProcessing(
        single=f"{start}$A{end}", pair=f"{start}$A $B{end}", special_tokens=special
    )


def chat_template(backend: tokenizers.Tokenizer, before: Sequence[int], cue: str | None) -> str:
    """A chat is its last message, as the source. check.py compares its ids with the codec's."""
    start = json.dumps("".join(backend.id_to_token(i) for i in before), ensure_ascii=False)
    end = json.dumps(f"\n{cue}" if cue else "", ensure_ascii=False)
    return f"{{{{ {start} + messages[-1]['content'] + {end} }}}}"


def shifted(data: dict[str, Any], shift: int) -> dict[str, Any]:
    """A tokenizer.json whose texts get ids that are larger by `shift`, and which decodes the ids below as before.

    shift: V, not less than the number of tokens. Raises UserError for a tokenizer of another kind than Unigram and BPE.
    """
    model, kind = data["model"], data["model"]["type"]
    added = [{**token, "id": token["id"] + shift} for token in data["added_tokens"]]
    if kind == "Unigram":
        # A piece that is there twice has the later id when a text is tokenised.
        pieces = [[piece, score] for piece, score in model["vocab"]]
        pieces += [[f"<|unused_{i}|>", 0.0] for i in range(len(pieces), shift)]
        unknown = None if model["unk_id"] is None else model["unk_id"] + shift
        return data | {"model": model | {"vocab": pieces + pieces, "unk_id": unknown}, "added_tokens": added}
    if kind == "BPE":
        tokens = model["vocab"] | {token["content"]: token["id"] for token in data["added_tokens"]}
        tokens |= {f"<|unused_{i}|>": i for i in set(range(shift)) - set(tokens.values())}
        targets = {f"{TARGET_MARK}{token}": i for token, i in tokens.items()}
        sources = {token: i + shift for token, i in tokens.items()}
        added += [
            {**token, "content": f"{TARGET_MARK}{token['content']}"} for token in data["added_tokens"]
        ]  # so that skip_special_tokens leaves them out
        decoders = [{"type": "Replace", "pattern": {"String": TARGET_MARK}, "content": ""}, data["decoder"]]
        decoder = {"type": "Sequence", "decoders": [step for step in decoders if step]}
        return data | {"model": model | {"vocab": targets | sources}, "added_tokens": added, "decoder": decoder}
    raise UserError(f"a tokenizer of kind {kind} cannot number sources and targets apart: --compact or --as peft can")
