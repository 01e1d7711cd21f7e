"""Tokenizers of the kinds that models have, made from a closed list of pieces."""

import string

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

PIECES = ["return", "▁return", "▁▁", "▁▁▁▁", "answer", "▁yes", "▁no", "yes", ".", "▁the"]


def wrap(backend, *, adds: str, **settings) -> transformers.PreTrainedTokenizerFast:
    """The tokenizer with "<s>" and "</s>" added as `adds` says ("<s> $A </s>"), and other entries of its config."""
    special = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single=adds, special_tokens=special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>", **settings
    )


def sentence_pieces(*, adds: str = "<s> $A", normalizer=None, **settings) -> transformers.PreTrainedTokenizerFast:
    """SentencePiece's kind: blanks are "▁", and one is put in front of every text. What is not ASCII is <unk>."""
    letters = sorted({*string.printable, "▁"} - {" "})
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    vocabulary += [(letter, -10.0) for letter in letters] + [(piece, -5.0) for piece in PIECES if len(piece) > 1]
    backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0))
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return wrap(backend, adds=adds, **settings)


def byte_level(*, adds: str = "$A", add_prefix_space: bool = False, **settings) -> transformers.PreTrainedTokenizerFast:
    """GPT-2's kind: bytes, and blanks belong to the word behind them."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(["def f(x):\n    return x\n\n\n    yes no answer: yes\n" * 5], trainer)
    return wrap(backend, adds=adds, **settings)


NFKC = normalizers.NFKC()
ONE_BLANK = normalizers.Sequence([NFKC, normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
"""What T5's tokenizer does to a text."""
