"""All rows of the real data sets pass through their tasks and T5's tokenizer."""

import re
from collections import Counter

import pytest
from rendering import config_of, encoder_decoder_codec

from adept.config.run import task_of
from adept.data.dataset import load_data, render_rows
from adept.data.sources import load_rows
from adept.tasks import TASKS

FREE_TEXT_LEN = 20
LONG = {
    "newsqa": (0.051, 0.051),
    "squad": (0.032, 0.078),
}  # share of targets that do not fit, under paper and official; none elsewhere


@pytest.mark.parametrize("protocol", ["paper", "official"])
@pytest.mark.parametrize(
    "name", [name for name in TASKS if name not in ("hotpotqa", "searchqa", "gsm8k", "movie_reviews")]
)
def test_all_real_rows_pass(name, protocol, shared, t5_tokenizer):
    config = config_of(name, protocol=protocol, data_dir=str(shared / "data"))
    task = task_of(config)
    if name == "record":  # 64 rows are no 1,000 to carve
        parts = []
        for split in task.splits:
            rows, _, where = load_rows(task, split, config)
            parts.append([example for examples in render_rows(task, split, rows, where) for example in examples])
    else:
        data = load_data(task, config)
        parts = [data.train, data.validation, data.test]
    examples = [example for part in parts for example in part]
    assert all(e.source.strip() and e.target.strip() and e.references and e.group for e in examples)
    assert len({e.id for e in examples}) == len(examples)
    if name == "mbpp":  # not for encoder-decoder models
        assert all(e.references[0] == e.source and re.search(rf"def {e.references[2]}\b", e.source) for e in examples)
        return
    assert all(all(e.references) for e in examples)

    coder, targets = encoder_decoder_codec(t5_tokenizer, task, config), Counter(e.target for e in examples)
    if labels := task.labels:
        assert set(targets) <= set(labels)
        in_words = config_of(name, targets="words")
        words = encoder_decoder_codec(t5_tokenizer, task_of(in_words), in_words)
        for limited, strings in ((coder, labels), (words, task.words)):
            assert [limited.text(limited.target_ids(label)) for label in strings] == list(strings)  # none is cut
    lengths = {target: len(t5_tokenizer(target).input_ids) for target in targets}
    long = sum(count for target, count in targets.items() if lengths[target] > FREE_TEXT_LEN)
    assert long / len(examples) == pytest.approx(LONG.get(name, (0, 0))[protocol == "official"], abs=0.002)
    for part in parts:
        for example in coder.encode(part[:300]):
            assert 1 < len(example.source_ids) <= task.max_source_len
            assert (
                1 < len(example.target_ids) <= coder.max_target_len
                and example.target_ids[-1] == t5_tokenizer.eos_token_id
            )
            assert all(example.references)
