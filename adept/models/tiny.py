"""Tiny random models of three families, made on first use: --model tiny-t5 | tiny-llama | tiny-codegen.

The profile "smoke" and the tests run on them in seconds; no quality is meant. Their tokenizer is trained on the rows of
data/fixtures.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from adept.base.paths import ROOT
from adept.models.bundled import FOLDER, publish

FIXTURE_FOLDER = ROOT / "data" / "fixtures"


def fixture_rows(task: str) -> list[dict]:
    return [json.loads(line) for line in (FIXTURE_FOLDER / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()]


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """data/bundled/<name>-<digest of the fixtures>, made by the first who asks."""
    digest = hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted([*FIXTURE_FOLDER.glob("*.jsonl"), Path(__file__)]))
    ).hexdigest()[:8]
    target = FOLDER / f"{name}-{digest}"
    if not target.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
            made = Path(scratch) / name
            made.mkdir()
            make(made)
            publish(made, target)
    return target


def tiny_model_folder(name: str) -> Path:
    """The folder of a tiny random model of that family, with its tokenizer."""
    family = name.removeprefix("tiny-")

    def make(folder: Path) -> None:
        make_model(family).save_pretrained(folder)
        make_tokenizer(folder, appends_eos=family == "t5")

    return made_once(name, make)


def make_tokenizer(folder: Path, *, appends_eos: bool):
    """A byte-level BPE of 320 tokens, trained on the fixtures and saved into `folder`."""
    import tokenizers
    import transformers

    texts = [
        str(value)
        for path in sorted(FIXTURE_FOLDER.glob("*.jsonl"))
        for row in fixture_rows(path.stem)
        for value in row.values()
    ]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if appends_eos:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(family: str):
    """A random model of two layers, 32 wide, always the same; leaves torch's random numbers where they were."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(family)


def build_model(family: str):
    import transformers

    match family:
        case "t5":
            return transformers.T5ForConditionalGeneration(
                transformers.T5Config(
                    vocab_size=328, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.1,
                    decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=1.0,
                )
            )  # fmt: skip
        case "llama":
            return transformers.LlamaForCausalLM(
                transformers.LlamaConfig(
                    vocab_size=328, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                    max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
                    initializer_range=0.3,
                )
            )  # fmt: skip
        case "codegen":
            return transformers.CodeGenForCausalLM(
                transformers.CodeGenConfig(
                    vocab_size=328, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=512, n_ctx=512,
                    pad_token_id=0, eos_token_id=1, bos_token_id=1, initializer_range=0.3,
                )
            )  # fmt: skip
    raise ValueError(f"no tiny model of the family '{family}'")
