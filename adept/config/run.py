"""RunConfig: every decision of a run in one frozen object.

Flags, YAML keys, the record's "config" and the run id are made from it.
Its own options are those of every run. Those of the method and of the task are declared by the method's and the task's
classes; a RunConfig holds one object of each, and answers for their options as for its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import InstanceOf
from pydantic.fields import FieldInfo

from adept.base.errors import UserError
from adept.base.options import MOST_TOKENS, Options, default_of, flat, is_place, option, option_type, read_options
from adept.config.identities import file_identity, model_identity, model_label
from adept.methods import METHODS, find_method
from adept.methods.method import Method
from adept.tasks import ROWS, find_task
from adept.tasks.task import Task, TaskOptions


class RunConfig(Options):
    """One run, fully resolved. Raises UserError for a value out of range or of the wrong type."""

    parts: ClassVar[tuple[str, ...]] = ("method_options", "task_options")

    method_options: InstanceOf[Method]
    """The method itself, with its options."""
    task_options: InstanceOf[TaskOptions]

    # What is run
    task: str = option(description="task name (adept/tasks; Appendix D)")
    task_file: str | None = option(
        None, "YAML file of a task of your own (data/README.md), in place of a name", path="always"
    )
    method: str = option("adept", "method name (adept/methods; Section 3)")
    model: str = option(
        "t5-base",
        "alias (t5-base, t5-3b, codegen-350m, llama3-8b, smollm2-135m, tiny-t5), hub id or local folder (Appendix C)",
        path="where it exists",
    )
    model_revision: str | None = option(None, "hub revision of the model to pin; None: the newest")
    protocol: str = option(
        "paper", "configs/protocol/NAME.yaml: 'paper' (its text) or 'official' (its released code, bug for bug)"
    )
    data_revision: str | None = option(None, "hub revision of the data set to pin; None: the task's, else the newest")
    init_from: str | None = option(
        None, "RUN_ID or adapter folder to start the trained parameters from (Appendix B.2)", path="where it exists"
    )

    # Optimisation (Appendix E)
    steps: int = option(30_000, "optimizer steps (Appendix E: 30,000 small and T5-3B, 300,000 large)", ge=0)
    epochs: float | None = option(None, "passes over the training rows, in place of --steps", ge=0.0)
    batch_size: int = option(32, "examples per forward pass (Appendix E)", ge=1)
    grad_accum: int = option(1, "forward passes per optimizer step (Appendix E: 2 on large tasks)", ge=1)
    accumulate: Literal["tokens", "batches"] = option(
        "tokens",
        "loss of a step of several passes: the mean over all its target 'tokens', or of the means of its 'batches' "
        "(released code)",
    )
    schedule: Literal["linear", "constant"] = option(
        "linear", "rate after warm-up: 'linear' decay to 0 (Appendix E) or 'constant'"
    )
    warmup_steps: int | None = option(
        None, "linear warm-up; None: 500 (Appendix E), a tenth of the steps where that is less", ge=0
    )
    adamw: Literal["torch", "transformers4"] = option(
        "torch", "AdamW adds eps after the bias correction ('torch') or before it ('transformers4': released code)"
    )
    weight_decay: float = option(0.01, "AdamW's (Appendix E: 0.01; released code: 0)", ge=0.0)
    beta1: float = option(0.9, "AdamW's (Appendix E)", ge=0.0, le=0.9999)
    beta2: float = option(0.98, "AdamW's (Appendix E: 0.98; released code: 0.999)", ge=0.0, le=0.99999)
    eps: float = option(1e-6, "AdamW's (Appendix E)", ge=0.0)
    max_grad_norm: float = option(
        1.0,
        "gradient norm over all trained parameters is clipped to this; 0: not clipped (released code: 1)",
        ge=0.0,
    )
    model_dropout: float | None = option(
        None,
        "dropout inside the frozen model while training; None: as its own config says (released code)",
        ge=0.0,
        le=0.99,
    )
    precision: Literal["fp32", "tf32", "bf16"] = option(
        "fp32", "fp32 (released code), tf32, or bf16: frozen weights and computation bf16, trained parameters fp32"
    )
    seed: int = option(42, "initialisation, data order, dropout (released code: 42)", ge=0)

    # Data and evaluation
    max_source_len: int | None = option(
        None,
        "source tokens, prompt not counted; None: the task's (Section 4.1: 256, MultiRC 348, MRQA 512)",
        ge=1,
        le=MOST_TOKENS,
    )
    max_target_len: int | None = option(
        None,
        "target tokens with EOS; None: the longest label, 20 for free text (released code)",
        ge=1,
        le=MOST_TOKENS,
    )
    targets: Literal["digits", "words"] = option(
        "digits",
        "label strings: 'digits' (released code) or 'words' (T5's; the default of a task file)",
    )
    task_prefix: bool = option(
        False,
        "sources begin with the task's name ('mrpc sentence1: ...'), as those of the quoted baselines do",
    )
    split_seed: int = option(
        42, "of the permutation that halves the validation set or carves 1,000 rows (released code: 42)", ge=0
    )
    few_shot: int | None = option(None, "train on this many examples, balanced over classes (Appendix B.2)", ge=1)
    few_shot_rule: Literal["balanced", "released"] | None = option(
        None,
        "'balanced' draws exactly --few_shot; 'released' draws k // classes of each, 30 of 32 with three classes "
        "(released code); None: no few shots",
    )
    group_by_length: bool = option(True, "batches of similar length (seeded); false: plain shuffling (released code)")
    eval_rows: int | None = option(
        None, "only the first rows of validation and test are evaluated; None: all (Section 4.1)", ge=1
    )
    eval_every: int = option(1000, "steps between evaluations on the validation set (Appendix C)", ge=1)
    scoring: Literal["generate", "likelihood"] = option(
        "generate", "prediction by 'generate' (greedy, whole vocabulary: released code) or by label 'likelihood'"
    )
    decoding: Literal["exact", "transformers4"] = option(
        "exact",
        "answers are what the tokens say, or without the blanks beside punctuation that transformers 4 removes and "
        "those around them (released code)",
    )
    invalid_answers: Literal["wrong", "released"] = option(
        "wrong",
        "answers that are no label or number are 'wrong' (T5), or as in the released code: a class of their own to "
        "Matthews, and one 'nan' makes a correlation 0",
    )
    max_new_tokens: int | None = option(
        None,
        "tokens generated; None: one more than the longest label, for free text max_target_len - 1 (released code: 19)",
        ge=1,
        le=MOST_TOKENS,
    )
    measure_offsets: bool = option(False, "record the sizes of embeddings and offsets over the training set (Table 2)")
    select_on: str | None = option(
        None, "validation metric that selects the checkpoint; None: the task's first (released code)"
    )
    fold: bool = option(
        False,
        "evaluate with the token-shared network folded into the embedding table; results change by rounding",
    )

    # Places and devices: no part of the run's id
    data_dir: str | None = option(
        None,
        "DIR/<task>/<split>.parquet or .jsonl are read before the hub is asked; 'fixtures': a few hand-written rows",
        place=True,
        path="always",
        names=("fixtures",),
    )
    results_dir: str = option(
        "results", "RESULTS_DIR/runs/<run_id>.json is the run's record", place=True, path="always"
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps", place=True)
    compile: bool = option(
        False,
        "compile the training step (torch.compile; on a GPU not yet tested); losses change by rounding",
        place=True,
    )
    checkpoint_activations: bool = option(
        False,
        "keep only each block's input and run the block again in the backward pass: less memory, more time, "
        "same results",
        place=True,
    )
    shard_model: bool = option(
        False,
        "under torchrun: each process holds a share of the frozen blocks' weights (FSDP2), for models too large for "
        "one",
        place=True,
    )
    eval_batch_size: int = option(64, "examples per batch at evaluation", ge=1, place=True)
    compare_scoring: bool = option(
        False,
        "score the test set by generation and by likelihood, and record how often they agree",
        place=True,
    )
    allow_code_execution: bool = option(
        False, "permit scoring to run generated programs, in adept/metrics/sandbox's confinement", place=True
    )
    log_every: int = option(10, "steps between points of the training loss", ge=1, place=True)
    save_every: int = option(
        1000,
        "steps between checkpoints that a killed run goes on from, one at least every 10 minutes; 0: only on a signal",
        ge=0,
        place=True,
    )
    track: Literal["none", "wandb", "tensorboard"] = option(
        "none", "mirrors the run to 'wandb' (WANDB_MODE=offline works) or 'tensorboard' (event files)", place=True
    )
    wandb_project: str = option("adept", "wandb project", place=True)
    wandb_group: str | None = option(
        None, "wandb group; None: a sweep's table, else task-model, so that methods lie side by side", place=True
    )

    def __getattr__(self, name: str) -> Any:
        """An option of the method or of the task. Raises AttributeError for one that this run does not have."""
        for part in RunConfig.parts:
            if name in (options := object.__getattribute__(self, "__dict__")[part]).own_options():
                return getattr(options, name)
        raise AttributeError(f"a run of method '{self.method}' on task '{self.task}' has no option '{name}'")

    def get(self, name: str) -> Any:
        """The value of any option, None where this run has no such option."""
        return getattr(self, name, None)

    def flat(self) -> dict[str, Any]:
        """{option: value}: what the record holds."""
        return flat(self, self.method_options, self.task_options)

    def replace(self, **changes: Any) -> RunConfig:
        """The configuration with some values changed, those of its method and task too, checked again."""
        return RunConfig.from_flat({**self.flat(), **changes}, type(self.task_options))

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], task_options: type[TaskOptions]) -> RunConfig:
        """The configuration of all options by name. An option of another method or task is left out where it is None.

        Raises UserError for an option that the run does not have, and for one that it lacks.
        """
        method = find_method(values["method"])
        known = {name for owner in (cls, method, task_options) for name in owner.own_options()}
        for name in values.keys() - known:
            if values[name] is not None:
                raise UserError(no_effect(name, method, values["task"], task_options))
        parts = {
            "method_options": build_options(method, values, f"method '{method.name}'"),
            "task_options": build_options(task_options, values, f"task '{values['task']}'"),
        }
        return cls(**{name: values[name] for name in cls.own_options() if name in values}, **parts)

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> RunConfig:
        """The configuration that a record or an adapter holds.

        Records of earlier versions also hold options of other methods and tasks, which are left out. Raises UserError
        for a wrong value and for an option that the run lacks, KeyError where there is no task.
        """
        task, method = values["task"], find_method(values.get("method", cls.model_fields["method"].default))
        task_options = TaskOptions if values.get("task_file") else type(find_task(task).options)
        known = {name for owner in (cls, method, task_options) for name in owner.own_options()}
        return cls.from_flat({"method": method.name} | {k: v for k, v in values.items() if k in known}, task_options)

    @property
    def run_id(self) -> str:
        """A readable part, and 8 hex digits over every option that is no place.

        Options of every run count where they differ from their default, so that existing ids stay when one is added.
        Those of the method and the task count unless they are None.
        """
        own = RunConfig.own_options()
        identity = {
            name: value
            for name, value in self.flat().items()
            if value != (default_of(own[name]) if name in own else None) and not is_place(OPTIONS[name])
        }
        identity["model"] = model_identity(self.model)
        if self.task_file is not None:  # by what it says, not by where it lies
            identity["task_file"] = file_identity(self.task_file)
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        # A file's name has at most 255 bytes.
        label = model_label(self.model).encode(errors="ignore")[:100].decode(errors="ignore")
        return f"{label}-{self.task}-{self.method}-{digest}"


def build_options(owner: type[Options], values: Mapping[str, Any], label: str) -> Any:
    """An `owner` of those of the values that it has. Raises UserError where one that it cannot do without is empty."""
    for name, field in owner.own_options().items():
        if name in values and values[name] is None and not option_type(field.annotation).optional:
            raise UserError(f"{label} needs --{name}: {field.description}")
    return read_options(owner, values)


# All options ----------------------------------------------------------------------------------------------------------


def all_owners() -> tuple[type[Options], ...]:
    """Every class that declares options of runs: RunConfig, the methods, the tasks' options."""
    return (RunConfig, *METHODS.values(), *dict.fromkeys(type(task.options) for task in ROWS))


def all_options() -> dict[str, FieldInfo]:
    """{name: field} of every option of any run; of an option that several classes have, the first one's field."""
    found: dict[str, FieldInfo] = {}
    for owner in all_owners():
        for name, field in owner.own_options().items():
            found.setdefault(name, field)
    return found


OPTIONS: dict[str, FieldInfo] = all_options()
METHOD_OPTIONS = frozenset(name for method in METHODS.values() for name in method.own_options())
TASK_OPTIONS = frozenset(name for task in ROWS for name in task.options.own_options())


def no_effect(name: str, method: type[Method], task: str, task_options: type[TaskOptions]) -> str:
    """The line for an option of another method or task: whose it is, and what this run has in its place."""
    if name in METHOD_OPTIONS:
        part, used = f"method '{method.name}'", [*method.own_options(), *(["steps"] if method.rates else [])]
        owners = [other.name for other in METHODS.values() if name in other.own_options()]
    else:
        part, used = f"task '{task}'", [*task_options.own_options()]
        owners = [row.name for row in ROWS if name in row.options.own_options()]
    uses = ", ".join(used) or "none of them"
    return f"--{name} has no effect on {part}, which uses {uses}; it belongs to {', '.join(owners)}"


def task_of(config: RunConfig) -> Task:
    """The task of a run, from its --task_file or the table of tasks, as its options have it. Raises UserError."""
    if config.task_file is not None:
        from adept.tasks.custom import read_task

        task = read_task(Path(config.task_file))
    else:
        task = find_task(config.task)
    return task.with_options(config.task_options, config.targets, config.invalid_answers, config.task_prefix)


def default_warmup(steps: int) -> int:
    """The steps of warm-up where nobody says how many (Appendix E)."""
    return min(500, steps // 10)
