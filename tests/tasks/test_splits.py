"""The paper's splits and sizes, made of what the hub has."""

import re

import datasets
import pytest
from rendering import config_of, permutation_by_seed_42

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.config.run import task_of
from adept.data.dataset import load_data
from adept.data.sources import load_rows
from adept.data.splits import split_rows
from adept.tasks import TASKS

GLUE, SUPERGLUE = "nyu-mll/glue", "aps/super_glue"
HUB: dict[str, tuple[str, str | None, dict[str, int]]] = {  # id, config and rows of the splits that are read
    "mnli": (GLUE, "mnli", {"train": 392_702, "validation_mismatched": 9_832, "validation_matched": 9_815}),
    "qqp": (GLUE, "qqp", {"train": 363_846, "validation": 40_430}),
    "qnli": (GLUE, "qnli", {"train": 104_743, "validation": 5_463}),
    "sst2": (GLUE, "sst2", {"train": 67_349, "validation": 872}),
    "stsb": (GLUE, "stsb", {"train": 5_749, "validation": 1_500}),
    "mrpc": (GLUE, "mrpc", {"train": 3_668, "validation": 408}),
    "rte": (GLUE, "rte", {"train": 2_490, "validation": 277}),
    "cola": (GLUE, "cola", {"train": 8_551, "validation": 1_043}),
    "multirc": (SUPERGLUE, "multirc", {"train": 27_243, "validation": 4_848}),
    "boolq": (SUPERGLUE, "boolq", {"train": 9_427, "validation": 3_270}),
    "wic": (SUPERGLUE, "wic", {"train": 5_428, "validation": 638}),
    "wsc": (SUPERGLUE, "wsc.fixed", {"train": 554, "validation": 104}),
    "cb": (SUPERGLUE, "cb", {"train": 250, "validation": 56}),
    "record": (SUPERGLUE, "record", {"train": 100_730, "validation": 10_000}),
    "nq": ("lucadiliello/naturalquestionsshortqa", None, {"train": 104_071, "validation": 12_836}),
    "hotpotqa": ("lucadiliello/hotpotqa", None, {"train": 72_928, "validation": 5_901}),
    "searchqa": ("lucadiliello/searchqa", None, {"train": 117_384, "validation": 16_980}),
    "newsqa": ("lucadiliello/newsqa", None, {"train": 74_160, "validation": 4_212}),
    "winogrande": ("allenai/winogrande", "winogrande_xl", {"train": 40_398, "validation": 1_267}),
    "yelp_polarity": ("fancyzhx/yelp_polarity", "plain_text", {"train": 560_000, "test": 38_000}),
    "scitail": ("allenai/scitail", "snli_format", {"train": 23_596, "validation": 1_304}),
    "paws": ("google-research-datasets/paws", "labeled_final", {"train": 49_401, "validation": 8_000, "test": 8_000}),
    "gsm8k": ("openai/gsm8k", "main", {"train": 7_473, "test": 1_319}),
    "mbpp": ("mxeval/mbxp", "python", {"mbxp_mbpp_release_v1": 974}),
}
CARVED = {"qqp", "qnli", "sst2", "record", "nq", "hotpotqa", "searchqa", "newsqa", "winogrande", "yelp_polarity"}


@pytest.mark.parametrize("name", HUB)
def test_the_hubs_counts_give_the_papers_sizes(name):
    task, counts = TASKS[name], HUB[name][2]
    rows = {split: [(split, i) for i in range(count)] for split, count in counts.items()}
    train, validation, test = split_rows(task, rows, 42)
    assert len({*train, *validation, *test}) == len(train) + len(validation) + len(test)  # disjoint
    if name != "record":
        assert (len(train), len(validation), len(test)) == task.sizes
    splits = tuple(counts)
    if name in CARVED:
        order = permutation_by_seed_42(counts["train"])
        assert validation == [("train", i) for i in order[:1000]]
        assert train == [("train", i) for i in order[1000 : 101_000 if name == "yelp_polarity" else None]]
        assert test == rows[splits[1]]
    elif name == "mbpp":
        assert (train, validation, test) == (rows[splits[0]][:487], [], rows[splits[0]][487:])
    elif name == "gsm8k":
        assert (train, validation, test) == (rows["train"], [], rows["test"])
    elif name in ("mnli", "paws"):
        assert (train, validation, test) == tuple(rows[split] for split in splits)
    else:
        order = permutation_by_seed_42(counts["validation"])
        half = len(order) // 2
        assert train == rows["train"]
        assert (validation, test) == tuple([("validation", i) for i in part] for part in (order[:half], order[half:]))


def test_too_few_rows_to_carve_are_told():
    with pytest.raises(
        UserError, match="task 'nq' sets 1,000 training rows aside for validation, but only 1000 are there"
    ):
        split_rows(TASKS["nq"], {"train": list(range(1000)), "validation": [0]}, 42)


@pytest.mark.parametrize("name", HUB)
def test_the_hub_is_asked_for_these_splits(name, monkeypatch):
    """Ids without loading scripts, as `datasets` 4 wants them."""
    asked = []

    class Loaded:
        def to_list(self):
            return []

    def load_dataset(*args, **kwargs):
        asked.append((*args, kwargs.get("data_files"), kwargs["split"]))
        return Loaded()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    config = config_of(name)
    for split in task_of(config).splits:
        load_rows(task_of(config), split, config)
    hub, subset, counts = HUB[name]
    if name == "mbpp":  # the hub's mxeval/mbxp is a loading script; its file lies on GitHub
        ((form, file, split),) = asked
        assert (form, split) == ("json", "train") and re.fullmatch(
            r"https://[^ ]+/mxeval/.*/mbpp_release_v1\.jsonl", file
        )
        original = config_of(name, mbpp_prompt="original")
        load_rows(task_of(original), "google_mbpp", original)
        # 1-10, 11-510, 511-600 and 601-974 are the task ids of these four
        assert asked[1:] == [("google-research-datasets/mbpp", "full", None, "prompt+test+validation+train")]
    else:
        assert asked == [(hub, subset, None, split) for split in counts]


@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "rte", "cb", "wsc", "wic", "multirc", "mbpp"])
def test_sizes_are_the_papers_and_splits_are_disjoint(name, shared):
    config = config_of(name, data_dir=str(shared / "data"))
    data = load_data(task_of(config), config)
    assert tuple(data.sizes.values()) == TASKS[name].sizes
    ids = [example.id for part in (data.train, data.validation, data.test) for example in part]
    assert len(set(ids)) == len(ids) == sum(TASKS[name].sizes)
    assert all(example.source and example.target for example in data.train)


def test_the_split_follows_the_released_codes_permutation(shared):
    """First half of torch.randperm(277, seed 42) validates: rows read off that permutation."""
    data = load_data(TASKS["rte"], resolve({"task": "rte", "data_dir": str(shared / "data")}))
    assert [e.id for e in data.validation[:4]] == [
        "validation:207",
        "validation:84",
        "validation:253",
        "validation:243",
    ]
    other = load_data(TASKS["rte"], resolve({"task": "rte", "data_dir": str(shared / "data"), "split_seed": 1}))
    assert other.fingerprint != data.fingerprint
