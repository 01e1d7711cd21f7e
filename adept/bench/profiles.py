"""What the bench measures: lengths of tasks' sources, styles of training and evaluation, grids of the paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from adept.tasks import TASKS


@dataclass(frozen=True)
class Profile:
    """The source lengths of one task, and the options of the runs on it."""

    deciles: tuple[int, ...]
    """The deciles (0%, 10%, ..., 100%) of the sources' lengths in T5 tokens, EOS included, truncated to the task's
    limit. Empty: the rows are real ones."""
    stands_for: tuple[str, ...]
    """The tasks of Tables 3-6 whose grid is projected from this profile, which is the nearest by the mean lengths of
    Appendix D."""
    task: str = ""
    """The task whose labels and limits are used; empty: the task of the profile's name."""
    fields: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """RunConfig fields of every run on this profile."""


PROFILES = {
    "sst2": Profile((4, 6, 7, 9, 11, 13, 15, 19, 25, 34, 74), ("sst2", "wic")),
    "cola": Profile((6, 9, 10, 11, 12, 13, 14, 15, 17, 21, 49), ("cola",)),
    "mnli": Profile(
        (8, 24, 30, 34, 39, 44, 49, 54, 62, 73, 236), ("mnli", "qqp", "qnli", "stsb", "wsc", "winogrande", "scitail")
    ),
    "rte": Profile((17, 40, 48, 54, 60, 66, 73, 86, 119, 154, 256), ("rte", "mrpc", "cb", "paws")),
    "boolq": Profile((35, 77, 95, 112, 127, 143, 160, 179, 207, 246, 256), ("boolq", "yelp_polarity")),
    "multirc": Profile((181, 235, 290, 319, 348, 348, 348, 348, 348, 348, 348), ("multirc", "record")),
    "mrqa": Profile(
        (30, 80, 112, 136, 159, 192, 231, 316, 512, 512, 512), ("nq", "hotpotqa", "searchqa", "newsqa"), task="nq"
    ),
    "movie_reviews": Profile(
        (),
        (),
        fields={
            "targets": "words", "max_source_len": 96, "batch_size": 16, "prompt_len": 7, "bottleneck": 8,
            "eval_rows": 200,
        },
    ),
}  # fmt: skip
"""By name. movie_reviews is the training step of configs/quickstart.yaml, with real rows and a real tokenizer."""


def validation_size(profile: str) -> int:
    """The number of validation rows of the profile's complete task."""
    return TASKS[PROFILES[profile].task or profile].sizes[1]


@dataclass(frozen=True)
class Style:
    """A way to train and to evaluate."""

    fields: Mapping[str, object]
    """RunConfig fields of the style."""
    released: bool = False
    """Use the padding, attention, logits and evaluation of the released code (adept/bench/released.py)."""
    trainer: bool = False
    """PEFT's model and transformers' Trainer (adept/bench/trainer.py)."""
    runs: int = 1
    """The number of runs stacked on one model. The reported time of a step is the share of one run."""


STYLES = {
    "released": Style({"group_by_length": False, "eval_batch_size": 32, "max_new_tokens": 19}, released=True),
    "trainer": Style({}, trainer=True),
    "ours": Style({}),
    "tf32": Style({"precision": "tf32"}),
    "bf16": Style({"precision": "bf16"}),
    "compiled": Style({"precision": "bf16", "compile": True}),
    "stacked": Style({}, runs=4),
    "stacked-bf16": Style({"precision": "bf16"}, runs=8),
    "stacked-compiled": Style({"precision": "bf16", "compile": True}, runs=8),
}

INFERENCE = {
    "pt 200": {"method": "pt", "prompt_len": 200},
    "pt 120": {"method": "pt", "prompt_len": 120},
    "dept 120/60": {"method": "dept", "prompt_len": 120, "rank": 60},
    "adept 120/39 live": {"method": "adept", "prompt_len": 120, "bottleneck": 39},
    "adept 120/39 folded": {"method": "adept", "prompt_len": 120, "bottleneck": 39, "fold": True},
}
"""The methods whose inference Table 8 compares, and PT with ADePT's prompt length: RunConfig fields by label."""

STEPS_PER_CYCLE = 1000
"""The paper evaluates after every 1,000 training steps; a cycle is these steps and one evaluation."""


@dataclass(frozen=True)
class GridPart:
    """Tasks that share a number of runs and of steps."""

    tasks: tuple[str, ...]
    runs_per_task: int
    steps_per_run: int


@dataclass(frozen=True)
class Grid:
    """ADePT's part of one of the paper's tables, with one seed."""

    model: str
    parts: tuple[GridPart, ...]

    @property
    def runs(self) -> int:
        return sum(len(part.tasks) * part.runs_per_task for part in self.parts)

    @property
    def steps(self) -> int:
        """The optimizer steps of all runs together."""
        return sum(len(part.tasks) * part.runs_per_task * part.steps_per_run for part in self.parts)


SEARCH_RUNS = 24
"""The number of runs of Appendix E's search, for each task."""

GRIDS = {
    "Table 3": Grid(
        "t5-base",
        (
            GridPart(
                ("sst2", "stsb", "mrpc", "rte", "cola", "multirc", "boolq", "wic", "wsc", "cb"), SEARCH_RUNS, 30_000
            ),
            GridPart(("mnli", "qqp", "qnli"), 1, 300_000),
        ),
    ),
    "Table 4": Grid(
        "t5-base",
        (
            GridPart(("winogrande", "scitail", "paws"), SEARCH_RUNS, 30_000),
            GridPart(("nq", "hotpotqa", "searchqa", "newsqa", "yelp_polarity"), 1, 300_000),
        ),
    ),
    "Tables 5, 6": Grid("t5-3b", (GridPart(("mnli", "record", "nq", "hotpotqa", "searchqa", "newsqa"), 1, 30_000),)),
}
