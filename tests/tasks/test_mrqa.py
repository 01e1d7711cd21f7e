"""Question answering: padded punctuation, printed lists, references cut as predictions are."""

import re

import pytest
import regex
from rendering import config_of, encoder_decoder_codec, rendered

from adept.config.run import task_of
from adept.models.tiny import fixture_rows
from adept.tasks.mrqa import pad_punctuation, printed_answers
from adept.training.session import open_session


def test_squads_printed_list_is_padded():
    assert printed_answers({"answers": ["Denver Broncos"]}, config_of("squad"))[0] == "[ ' Denver Broncos ' ]"


def test_references_are_cut_as_predictions_are(t5_tokenizer):
    words = ("one two three four five six seven eight nine " * 3).split()
    answer, kept = " ".join(words), " ".join(words[:19])  # 20 tokens with EOS
    assert len(t5_tokenizer(answer).input_ids) == 28  # a token a word
    for name, flags in (("nq", {}), ("squad", {"squad_target": "first"}), ("record", {})):
        row = {**fixture_rows(name)[0], "answers": [answer, "one"]}
        for protocol, references in (("paper", (answer, "one")), ("official", (kept,))):
            config = config_of(name, protocol=protocol, **flags)
            encoded = encoder_decoder_codec(t5_tokenizer, task_of(config), config).encode(
                rendered(name, [row], protocol=protocol, **flags)
            )[0]
            assert encoded.references == references
            assert (
                len(encoded.target_ids) == 20
                and t5_tokenizer.decode(encoded.target_ids, skip_special_tokens=True) == kept
            )


def test_a_run_cuts_references_where_its_config_says_so(make_config):
    for protocol, expected in (("paper", False), ("official", True)):
        assert open_session(make_config("t5", task="nq", protocol=protocol)).codec.cut_references is expected
    assert open_session(make_config("t5", task="rte", protocol="official")).codec.cut_references is False


def test_t5_does_not_see_the_blanks_that_the_released_padding_leaves(t5_tokenizer):
    for plain in (
        "U.S.",
        "(1870–1940)",
        "François, 5%!",
        "[PAR] [TLE] Kemi",
        '"It\'s cold," she said.',
        "a\t b \n",
        "no punctuation",
    ):
        padded = pad_punctuation(plain)
        released = re.sub(r"\s+", " ", regex.sub(r"([^_\s\p{N}\p{L}\p{M}])", r" \1 ", plain))
        assert released.strip() == padded
        for other in (released, f" {padded} ", padded.replace(" ", "  "), f"{padded}\n"):
            assert t5_tokenizer(other).input_ids == t5_tokenizer(padded).input_ids
    assert t5_tokenizer("U . S .").input_ids != t5_tokenizer("U.S.").input_ids


@pytest.mark.parametrize(
    ("plain", "padded"),
    [
        ("U.S.", "U . S ."),
        ("François", "François"),
        ("Zoe\u0308", "Zoe\u0308"),  # a combining accent
        ("bees_wax", "bees_wax"),
        ("1,234 of ½", "1 , 234 of ½"),
        ("a\tb\n\nc ", "a b c"),
        ("«Привет», 東京。", "« Привет » , 東京 。"),
        ("...", ". . ."),
        ("", ""),
    ],
)
def test_punctuation_is_padded_and_letters_digits_and_accents_are_not(plain, padded):
    assert pad_punctuation(plain) == padded
