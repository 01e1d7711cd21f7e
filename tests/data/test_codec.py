"""A row is one text, whatever the tokenizer adds to texts, and an answer is what that text says behind its source."""

import pytest
import torch
from small_tokenizers import NFKC, ONE_BLANK, byte_level, sentence_pieces

from adept.base.errors import UserError
from adept.data.codec import Codec, check_labels, clean_up
from adept.data.dataset import load_data
from adept.data.example import Example
from adept.models.loading import load_model
from adept.training.evaluation import evaluate
from adept.training.session import open_session, open_session_on

TOKENIZERS = {
    "SentencePiece": lambda **settings: sentence_pieces(**settings),
    "SentencePiece, which adds EOS": lambda **settings: sentence_pieces(adds="<s> $A </s>", **settings),
    "byte level": lambda **settings: byte_level(**settings),
    "byte level, which adds a blank": lambda **settings: byte_level(add_prefix_space=True, adds="<s> $A", **settings),
}
LEAKS = {
    "truncation_side": "left",
    "padding_side": "left",
    "clean_up_tokenization_spaces": True,
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True,
    "model_max_length": 4,
}
"""Entries of tokenizer_config.json that would change ids or texts."""


def codec(tokenizer, *, cue="answer:", encoder_decoder=False, **fields) -> Codec:
    sizes = {"prompt_ids": (), "max_source_len": 200, "max_target_len": 100, **fields}
    return Codec(tokenizer, encoder_decoder=encoder_decoder, cue=cue, **sizes)


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param](**LEAKS)


CODE = [
    ("def f(x):\n", "    return x\n"),
    ("def f(x):\n    ", "return  x .\n"),
    ("f = lambda x: ", "x"),
    ("x", "yz"),
    ("# the end.", "\n\n    return 1 , 2\n  "),
]


@pytest.mark.parametrize(("source", "target"), CODE)
def test_code_is_one_text_and_is_read_as_it_was_written(tokenizer, source, target):
    made = codec(tokenizer, cue=None)
    (example,) = made.encode([Example("0", source, target, ())])
    body = [i for i in (*example.source_ids, *example.target_ids) if i not in tokenizer.all_special_ids]
    assert tokenizer.decode(body, clean_up_tokenization_spaces=False).removeprefix(" ") == source + target
    assert made.text(example.target_ids) == target


def test_the_ids_of_code_are_those_of_the_joined_text():
    for make in TOKENIZERS.values():
        tokenizer = make()
        (example,) = codec(tokenizer, cue=None).encode([Example("0", "x = 1\ny = (", "x + 2)\n", ())])
        joined = tokenizer("x = 1\ny = (x + 2)\n", add_special_tokens=False).input_ids
        assert [*example.source_ids, *example.target_ids][-len(joined) - 1 : -1] == joined


@pytest.mark.parametrize("target", ["yes", " yes", "yes  no ", "one , two .", "\tyes\n", "do n't"])
def test_free_text_behind_a_cue_is_read_as_it_was_written(tokenizer, target):
    made = codec(tokenizer)
    (example,) = made.encode([Example("0", "review: fine", target, ())])
    assert made.text(example.target_ids) == target
    assert made.text([*example.target_ids, tokenizer.pad_token_id, 5, 6]) == target  # nothing counts behind EOS


def test_source_cue_and_target_have_the_ids_of_their_joined_text():
    for make in TOKENIZERS.values():
        tokenizer = make()
        (example,) = codec(tokenizer).encode([Example("0", "review: fine", "yes", ())])
        joined = tokenizer("review: fine\nanswer: yes", add_special_tokens=False).input_ids
        assert [*example.source_ids, *example.target_ids][-len(joined) - 1 : -1] == joined


def test_bos_stays_at_the_beginning_and_eos_stands_at_the_end_alone(tokenizer):
    for cue, long in (("answer:", "a fine film " * 50), (None, "x = 1\n" * 100), ("answer:", "short")):
        made = codec(tokenizer, cue=cue)
        (example,) = made.encode([Example("0", long, "yes", ())])
        assert tokenizer.eos_token_id not in example.source_ids and example.target_ids[-1] == tokenizer.eos_token_id
        adds_bos = tokenizer("x").input_ids[0] == tokenizer.bos_token_id
        places = [i for i, token in enumerate(example.source_ids) if token == tokenizer.bos_token_id]
        assert places == [0] * adds_bos and len(example.source_ids) <= made.max_source_len


@pytest.mark.parametrize("encoder_decoder", [True, False])
def test_settings_of_the_tokenizer_do_not_leak(encoder_decoder):
    rows = [Example("0", "first words , " + "and more " * 60, "yes .", ("yes .",))]
    for make in TOKENIZERS.values():
        plain, leaky = (codec(make(**s), encoder_decoder=encoder_decoder, max_source_len=20) for s in ({}, LEAKS))
        assert plain.encode(rows) == leaky.encode(rows)
        assert plain.decode(leaky.encode(rows)[0].source_ids).strip().startswith("first words , ")
        assert leaky.text(leaky.target_ids("yes .")) == "yes ."


def test_an_encoder_decoders_source_keeps_the_special_tokens_around_it():
    made = codec(sentence_pieces(adds="<s> $A </s>"), encoder_decoder=True, max_source_len=6)
    (example,) = made.encode([Example("0", "yes yes yes yes yes yes", "no", ())])
    assert (example.source_ids[0], example.source_ids[-1], len(example.source_ids)) == (1, 2, 6)
    with pytest.raises(UserError, match="--max_source_len 2 leaves no room for a source beside"):
        codec(sentence_pieces(adds="<s> $A </s>"), encoder_decoder=True, max_source_len=2).encode([example])


def test_a_byte_level_tokenizers_ids_are_those_of_the_parts():
    """So that the committed results stay: also where the source ends with a blank."""
    tokenizer = byte_level()
    (example,) = codec(tokenizer).encode([Example("0", "a warm film ", "yes", ())])
    parts = [tokenizer(text).input_ids for text in ("a warm film ", "\nanswer:", " yes")]
    assert [*example.source_ids, *example.target_ids] == [*parts[0], *parts[1], *parts[2], tokenizer.eos_token_id]


def test_the_ids_that_likelihood_scores_are_those_of_training(tokenizer):
    for encoder_decoder in (True, False):
        made = codec(tokenizer, encoder_decoder=encoder_decoder)
        for example in made.encode([Example("0", "review: fine", label, ()) for label in ("yes", "no", "0")]):
            assert list(example.target_ids) == made.target_ids(example.target)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(("family", "task"), [("llama", "squad"), ("t5", "squad"), ("llama", "rte"), ("t5", "rte")])
def test_a_model_that_answers_with_the_target_is_right_in_every_row(make_config, monkeypatch, name, family, task):
    config = make_config(family, task=task, targets="words")
    model, _ = load_model(config.model)
    session = open_session_on(config, model, TOKENIZERS[name](**LEAKS))
    examples = session.codec.encode(load_data(session.task, config).test)
    targets = {example.source_ids: example.target_ids for example in examples}

    def answer(input_ids, attention_mask, **_):
        rows = [[i for i in row if i not in session.codec.prompt_ids] for row in padless(input_ids, attention_mask)]
        answers = torch.nn.utils.rnn.pad_sequence([torch.tensor(targets[tuple(row)]) for row in rows], batch_first=True)
        return torch.cat([torch.zeros(len(rows), 1) if session.codec.encoder_decoder else input_ids, answers], 1).long()

    monkeypatch.setattr(session.model, "generate", answer)
    scores, predictions = evaluate(session, examples)
    assert predictions == [example.target for example in examples]
    assert scores[session.task.reported] == 100


def padless(ids, mask):
    return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]


# Labels ---------------------------------------------------------------------------------------------------------------

BAD_LABELS = {
    "unknown letters": (("好评", "差评"), "labels '好评' and '差评' are the same tokens"),
    "Roman numbers": (("Ⅰ", "Ⅱ"), "label 'Ⅰ' cannot be predicted: .* makes 'I' of it"),
    "a brace": (("{open}", "open"), "'{open}'"),
    "full width": (("ａ", "a"), "labels 'ａ' and 'a' are the same tokens"),
    "decomposed letters": (("ne\u0301", "no"), "label 'ne\u0301' cannot be predicted"),
    "two blanks": (("very  good", "bad"), "label 'very  good' cannot be predicted: .* makes 'very good' of it"),
    "an end mark": (("</s>", "no"), "label '</s>' cannot be predicted"),
}


@pytest.mark.parametrize("encoder_decoder", [True, False])
@pytest.mark.parametrize("case", [case for case in BAD_LABELS if case != "a brace"])
def test_labels_that_the_tokenizer_cannot_write_or_tell_apart_are_told(case, encoder_decoder):
    labels, message = BAD_LABELS[case]
    made = codec(sentence_pieces(normalizer=ONE_BLANK), encoder_decoder=encoder_decoder)
    with pytest.raises(UserError, match=f"{message}.*--targets digits"):
        check_labels(made, labels)


@pytest.mark.parametrize("case", [*BAD_LABELS, "signs"])
def test_labels_that_t5_cannot_write_are_told(case, t5_tokenizer):
    labels, message = BAD_LABELS.get(case, (("<", ">"), "labels '<' and '>' are the same tokens|label '<' cannot be"))
    with pytest.raises(UserError, match=message):
        check_labels(codec(t5_tokenizer, encoder_decoder=True), labels)


@pytest.mark.parametrize("encoder_decoder", [True, False])
def test_labels_that_survive_are_taken(tokenizer, encoder_decoder, t5_tokenizer):
    labels = ("0", "1", "yes", "no", "not_equivalent", "very good", "do n't")
    check_labels(codec(tokenizer, encoder_decoder=encoder_decoder), labels)
    check_labels(codec(t5_tokenizer, encoder_decoder=True), labels)
    made = codec(tokenizer, encoder_decoder=encoder_decoder)
    assert [made.text(made.target_ids(label)) for label in labels] == list(labels)


def test_a_label_that_is_cut_is_told(make_config):
    with pytest.raises(UserError, match="--max_target_len 2 cuts the label 'entailment', which needs"):
        open_session(make_config(targets="words", max_target_len=2))


def test_labels_are_checked_before_training(make_config, model_folders, tmp_path):
    import transformers

    transformers.AutoModelForCausalLM.from_pretrained(model_folders["llama"]).save_pretrained(tmp_path)
    sentence_pieces(normalizer=NFKC).save_pretrained(tmp_path)
    open_session(make_config("llama", model=str(tmp_path)))
    open_session(make_config("llama", model=str(tmp_path), targets="words"))
    file = tmp_path / "task.yaml"
    file.write_text("{name: mine, files: {train: a.csv, validation: a.csv, test: a.csv}, text: [a], labels: [Ⅰ, Ⅱ]}")
    config = make_config("llama", model=str(tmp_path), task=None, task_file=str(file), targets="words")
    with pytest.raises(UserError, match="label 'Ⅰ' cannot be predicted"):
        open_session(config)
    open_session(config.replace(targets="digits"))


# The released code's decoding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("1 , 000", "1, 000"),
        ("London ' s", "London's"),
        (" U . S . ", "U. S."),
        ("do n't , I 'm , it 's , we 've , you 're !", "don't, I'm, it's, we've, you're!"),
        ("who ?", "who?"),
    ],
)
def test_the_released_clean_up(text, cleaned, t5_tokenizer):
    assert clean_up(text) == cleaned == t5_tokenizer.clean_up_tokenization(text).strip()


def test_gold_and_predicted_strings_are_cleaned_up_alike_under_official(make_config):
    for protocol, text in (("paper", "London ' s"), ("official", "London's")):
        session = open_session(make_config(task="squad", protocol=protocol))
        example = Example("0", "question: whose ?", "London ' s", ("London ' s",))
        (encoded,) = session.codec.encode([example])
        assert session.codec.text(encoded.target_ids) == text and encoded.references == (text,)
