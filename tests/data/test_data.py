"""Collation for both kinds of model, batch order, few-shot sampling."""

import itertools
import json
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest
import torch

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.data.batches import batch_indices
from adept.data.codec import Codec
from adept.data.dataset import load_data
from adept.data.example import IGNORED, Example
from adept.data.few_shot import few_shot
from adept.data.sources import load_rows
from adept.tasks import TASKS


class Letters:
    """A tokenizer whose ids can be read: a=10, b=11, ...; pad and EOS share id 2, as GPT-style tokenizers have it."""

    pad_token_id = eos_token_id = 2

    def __call__(self, text, **_):
        class Output:
            pass

        rows = [[ord(c) - 87 for c in t if c.isalpha()] for t in ([text] if isinstance(text, str) else text)]
        output = Output()
        output.input_ids = rows[0] if isinstance(text, str) else rows
        return output


def codec(encoder_decoder, **fields):
    common = {
        "tokenizer": Letters(),
        "encoder_decoder": encoder_decoder,
        "prompt_ids": (100, 101),
        "max_source_len": 6,
        "max_target_len": 3,
    }
    return Codec(**{**common, "cue": "c", "multiple": 1, **fields})


EXAMPLES = [Example("0", "ab", "x", ()), Example("1", "abcd", "y", ())]


def test_encoder_decoder_batch():
    c = codec(True)
    batch = c.train_batch(c.encode(EXAMPLES))
    assert batch["input_ids"].tolist() == [[100, 101, 10, 11, 2, 2], [100, 101, 10, 11, 12, 13]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert batch["labels"].tolist() == [[33, 2], [34, 2]]
    assert torch.equal(c.source_batch(c.encode(EXAMPLES))["input_ids"], batch["input_ids"])


def test_decoder_only_batches():
    c = codec(False)
    encoded = c.encode(EXAMPLES)
    batch = c.train_batch(encoded)
    assert batch["input_ids"].tolist() == [[100, 101, 10, 11, 12, 33, 2, 2, 2], [100, 101, 10, 11, 12, 13, 12, 34, 2]]
    assert batch["attention_mask"].tolist() == [
        [1] * 7 + [0, 0],
        [1] * 9,
    ]  # EOS is seen, padding with the same id is not
    assert batch["logits_to_keep"].tolist() == [4, 5, 6, 7]
    assert batch["shift_labels"].tolist() == [[33, 2, IGNORED, IGNORED], [IGNORED, IGNORED, 34, 2]]
    source = c.source_batch(encoded)
    assert source["input_ids"].tolist() == [[2, 2, 100, 101, 10, 11, 12], [100, 101, 10, 11, 12, 13, 12]]
    assert source["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 1], [1] * 7]


@pytest.mark.parametrize("encoder_decoder", [True, False])
def test_truncation_removes_source_tokens_only(encoder_decoder):
    c = codec(encoder_decoder, max_source_len=4)
    (encoded,) = c.encode([Example("0", "abcdefgh", "xyz", ())])
    assert encoded.source_ids == ((10, 11, 12, 13) if encoder_decoder else (10, 11, 12, 12))  # the cue "c" = 12 stays
    assert encoded.target_ids == (33, 34, 2)  # EOS stays
    assert c.train_batch([encoded])["input_ids"][0, :2].tolist() == [100, 101]


def test_a_source_limit_below_the_cue_is_told():
    with pytest.raises(UserError, match="--max_source_len 1 leaves no room"):
        codec(False, max_source_len=1).encode(EXAMPLES)


def test_widths_are_multiples():
    assert codec(True, multiple=8).train_batch(codec(True).encode(EXAMPLES))["input_ids"].shape == (2, 8)


@pytest.mark.parametrize("group_by_length", [True, False])
def test_every_epoch_visits_each_row_once_in_a_seeded_order(group_by_length):
    lengths = [(i * 37) % 101 for i in range(50)]

    def first_batches(count, seed):
        return list(itertools.islice(batch_indices(lengths, 8, seed, group_by_length=group_by_length), count))

    two_epochs = first_batches(14, 3)
    for epoch in (two_epochs[:7], two_epochs[7:]):
        assert Counter(itertools.chain(*epoch)) == Counter(range(50))
    assert two_epochs[:7] != two_epochs[7:]
    assert first_batches(14, 3) == two_epochs != first_batches(14, 4)


def test_grouping_by_length_saves_padding():
    torch.manual_seed(0)
    lengths = torch.randint(5, 200, (1000,)).tolist()

    def padding(group_by_length):
        batches = itertools.islice(batch_indices(lengths, 32, 0, group_by_length=group_by_length), 32)
        widths = [(len(b) * max(lengths[i] for i in b), sum(lengths[i] for i in b)) for b in batches]
        return 1 - sum(used for _, used in widths) / sum(width for width, _ in widths)

    assert padding(True) < 0.05 < 0.4 < padding(False)


def shots(rows, count, seed, rule="balanced", labels=("0", "1", "2")):
    return few_shot(rows, resolve({"task": "cb", "few_shot": count, "seed": seed, "few_shot_rule": rule}), labels)


ROWS = [Example(str(i), "s", "012"[i % 3 if i < 90 else 0], ()) for i in range(200)]
FREE = [Example(str(i), "s", f"answer {i}", ()) for i in range(50)]


def test_few_shot_is_balanced_seeded_and_exact():
    for count in (4, 16, 32):
        chosen = shots(ROWS, count, 1)
        sizes = Counter(e.target for e in chosen).values()
        assert len({e.id for e in chosen}) == count and max(sizes) - min(sizes) <= 1
    assert shots(ROWS, 16, 1) == shots(ROWS, 16, 1) != shots(ROWS, 16, 2)
    assert len(shots(FREE, 16, 1, labels=None)) == 16
    with pytest.raises(UserError, match="--few_shot 51 is more than the 50 training rows"):
        shots(FREE, 51, 1, labels=None)


def test_the_released_few_shot_draw():
    """k // classes of each in the order of datasets' shuffle(seed), any class for the k-th alone: three classes give 30
    of 32.
    """
    import datasets

    for count, sizes in ((4, [1, 1, 2]), (16, [5, 5, 6]), (32, [10, 10, 10])):
        assert sorted(Counter(e.target for e in shots(ROWS, count, 1, "released")).values()) == sizes
    order = datasets.Dataset.from_dict({"id": [e.id for e in ROWS]}).shuffle(seed=5)["id"]
    places = [order.index(e.id) for e in shots(ROWS, 16, 5, "released")]
    assert places == sorted(places)  # greedy: in the shuffled order
    seen = Counter()
    for i in order[: places[-1]]:  # nothing is passed over that still had room
        seen[ROWS[int(i)].target] += 1
    assert all(count >= 5 for count in seen.values())
    scores = [Example(str(i), "s", f"{i / 10:.1f}", ()) for i in range(50)]
    chosen = shots(scores, 16, 1, "released", labels=None)
    assert sum(float(e.target) <= 2.5 for e in chosen) == 8
    with pytest.raises(UserError, match="free text: --few_shot_rule balanced"):
        shots(FREE, 4, 1, "released", labels=None)


def test_parquet_and_jsonl_rows_are_the_same(tmp_path, make_config):
    config = make_config(data_dir=str(tmp_path))
    (tmp_path / "rte").mkdir()
    rows = [{"sentence1": "a", "sentence2": "b", "label": 0}, {"sentence1": "ä", "sentence2": "\n", "label": 1}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rte" / "train.parquet")
    (tmp_path / "rte" / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert load_rows(TASKS["rte"], "train", config)[0] == load_rows(TASKS["rte"], "validation", config)[0] == rows


def test_a_data_dir_that_is_no_folder_is_told(make_config):
    with pytest.raises(UserError, match="--data_dir nowhere is not a folder"):
        load_rows(TASKS["rte"], "train", make_config(data_dir="nowhere"))


def test_a_split_without_rows_is_told(tmp_path, make_config):
    (tmp_path / "rte").mkdir()
    row = '{"sentence1": "a", "sentence2": "b", "label": 0}\n'
    (tmp_path / "rte" / "train.jsonl").write_text(row)
    (tmp_path / "rte" / "validation.jsonl").write_text(row)
    with pytest.raises(UserError, match="no validation rows are left after the split"):
        load_data(TASKS["rte"], make_config(data_dir=str(tmp_path)))
