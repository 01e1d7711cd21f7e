"""RunConfig: every decision of a run in one flat, frozen dataclass; flags, YAML layers and run ids made from it.

Layers, later ones win: dataclass defaults < configs/base.yaml < configs/protocol/<protocol>.yaml < --config FILE < flags.
A YAML layer is a mapping of field names. A key that begins with "@" opens a block that applies only to some runs:
"@pt" (a method), "@rte" (a task), "@large" or "@glue" (a task group), "@smollm2-135m" (a model), or several words that must all match
("@dept @mrqa"). Blocks apply in the order written, after the layer's plain keys.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import hashlib
import json
import math
import os
import re
import types
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: configs/, data/ and results/ lie here, wherever the command is typed."""


SECRET = re.compile(
    r"(?<=://)[^/\s@]+(?=@)|(?<=:/)[^/\s@:]*:[^/\s@]+(?=@)"  # https://user:password@host; Path() makes one slash of two
    r"|(?<=[?&])(?:[\w-]*(?:token|secret|password|signature)[\w-]*|\w*key)=[^&#\s'\"]+"  # https://host/path?token=...
    r"|\b(?:hf_[A-Za-z0-9]{30,}|A[KS]IA[A-Z0-9]{16})\b",  # of the Hugging Face hub, of AWS
    re.IGNORECASE,
)
"""What no value may hold: values are written into records, adapters, logs and wandb."""

LONGEST_LINE = 2000


class UserError(Exception):
    """A mistake in the input: its text is the one line a user sees (what was wrong, what would be right).

    The text may quote what stands in foreign files, so it is made printable here: one line of bounded length, without control characters
    and without secrets.
    """

    def __init__(self, text: str):
        line = re.sub(r"(?:\x1b\[[\d;]*m|[\x00-\x1f\x7f-\x9f\u2028\u2029])+", " ", SECRET.sub("***", text[: 4 * LONGEST_LINE]))
        super().__init__(line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "...")


LARGEST = 2**31 - 1
"""Of all whole numbers: what torch's generators (which the loop seeds with 100,003 times the seed) and tokenizers can count."""

MOST_TOKENS = 1_000_000
"""Beyond any model's context, and little enough to be counted in memory."""

WIDEST = 16_384
"""Of prompts and of the methods' own layers: beyond every model's width, and little enough to be made on any machine."""


def option(default: Any = dataclasses.MISSING, help: str = "", *, minimum=None, maximum=None, choices=None, place=False):
    """A RunConfig field: its default, its help text, its range, and whether it is a place or device (kept out of run_id).

    Whole numbers without a maximum end at LARGEST.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "choices": choices, "place": place}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, fully resolved. Flags, YAML keys and the record's "config" carry these names.

    A field that the method does not use is None (so that it can neither be set in vain nor change the run's id).
    Raises UserError for a value out of range or of the wrong type.
    """

    # What is run
    task: str = option(help="task name from adept/tasks.py (Appendix D)")
    task_file: str | None = option(None, "YAML file of a task of your own (README.md), in place of a name")
    method: str = option("adept", "method name from adept/methods.py (Section 3)")
    model: str = option(
        "t5-base", "alias (t5-base, t5-3b, codegen-350m, llama3-8b, smollm2-135m, tiny-t5), hub id or local folder (Appendix C)"
    )
    model_revision: str | None = option(None, "hub revision of the model to pin; None: the newest")
    protocol: str = option("paper", "configs/protocol/NAME.yaml: 'paper' (its text) or 'official' (its released code, bug for bug)")
    data_revision: str | None = option(None, "hub revision of the data set to pin; None: the row's, else the newest")
    init_from: str | None = option(None, "RUN_ID or adapter folder to start the trained parameters from (Appendix B.2)")

    # The method's shape; None where the method has no such part
    prompt_len: int | None = option(None, "virtual tokens: m of ADePT and DePT, l of PT (Eq. 1-4)", minimum=0, maximum=WIDEST)
    bottleneck: int | None = option(None, "r of ADePT's network, d -> r -> d (Eq. 3)", minimum=1, maximum=WIDEST)
    rank: int | None = option(None, "rank of DePT's A B (Eq. 2), or of LoRA (Appendix C)", minimum=1, maximum=WIDEST)
    prompt_init: str | None = option(
        None,
        "prompt rows start as: 'vocab' embeddings of frequent tokens (Section 4.1), the 'text' of --prompt_init_text (released code), "
        "'random' N(0,1)",
        choices=("vocab", "text", "random"),
    )
    prompt_init_vocab: int | None = option(None, "'vocab' draws from this many most frequent tokens", minimum=1)
    prompt_init_text: str | None = option(None, "'text' repeats this string's tokens (released code)")
    bottleneck_init: str | None = option(
        None,
        "W_down's uniform bound: 'rank' 1/sqrt(r) (released code), 'width' 1/sqrt(d) (torch's Linear)",
        choices=("rank", "width"),
    )
    bottleneck_dropout: float | None = option(
        None, "dropout before the bottleneck's ReLU (released code 0.1; Eq. 3 has none)", minimum=0.0, maximum=0.99
    )
    offset_len: int | None = option(
        None,
        "s of DePT: positions after the prompt that carry an offset; default max_source_len (Section 3.1)",
        minimum=1,
        maximum=MOST_TOKENS,
    )
    offset_alpha: float | None = option(
        None, "DePT's offset is scaled by this / sqrt(rank) (DePT's code: 8); 0: not scaled (Eq. 2)", minimum=0.0
    )
    offset_shift: int | None = option(
        None,
        "a trained DePT is evaluated with its offsets cyclically shifted left by this many positions (Table 1)",
        minimum=0,
    )
    without_offset: bool | None = option(None, "a trained adapter is evaluated with its prompt only (Table 11)")
    lora_alpha: float | None = option(None, "LoRA's alpha (Appendix C, LoPA's setting)", minimum=0.0)
    lora_dropout: float | None = option(None, "LoRA's dropout", minimum=0.0, maximum=0.99)

    # Optimisation (Appendix E)
    prompt_lr: float | None = option(None, "peak rate of the prompt (Appendix E)", minimum=0.0)
    offset_lr: float | None = option(None, "peak rate of the network or low-rank matrices (Appendix E)", minimum=0.0)
    lr: float | None = option(None, "peak rate of methods with one rate: full, lora", minimum=0.0)
    steps: int = option(30_000, "optimizer steps (Appendix E: 30,000 small and T5-3B, 300,000 large)", minimum=0)
    batch_size: int = option(32, "examples per forward pass (Appendix E)", minimum=1)
    grad_accum: int = option(1, "forward passes per optimizer step (Appendix E: 2 on large tasks)", minimum=1)
    schedule: str = option("linear", "rate after warm-up: 'linear' decay to 0 (Appendix E) or 'constant'", choices=("linear", "constant"))
    warmup_steps: int | None = option(None, "linear warm-up; None: 500 (Appendix E), a tenth of the steps where that is less", minimum=0)
    weight_decay: float = option(0.01, "AdamW's (Appendix E: 0.01; released code: 0)", minimum=0.0)
    beta1: float = option(0.9, "AdamW's (Appendix E)", minimum=0.0, maximum=0.9999)
    beta2: float = option(0.98, "AdamW's (Appendix E: 0.98; released code: 0.999)", minimum=0.0, maximum=0.99999)
    eps: float = option(1e-6, "AdamW's (Appendix E)", minimum=0.0)
    max_grad_norm: float = option(
        1.0, "gradient norm over all trained parameters is clipped to this; 0: not clipped (released code: 1)", minimum=0.0
    )
    model_dropout: float | None = option(
        None, "dropout inside the frozen model while training; None: as its own config says (released code)", minimum=0.0, maximum=0.99
    )
    precision: str = option(
        "fp32",
        "fp32 (released code), tf32, or bf16: frozen weights and computation bf16, trained parameters fp32",
        choices=("fp32", "tf32", "bf16"),
    )
    seed: int = option(42, "initialisation, data order, dropout (released code: 42)", minimum=0)

    # Data and evaluation
    max_source_len: int | None = option(
        None,
        "source tokens, prompt not counted; None: the task's (Section 4.1: 256, MultiRC 348, MRQA 512)",
        minimum=1,
        maximum=MOST_TOKENS,
    )
    max_target_len: int | None = option(
        None, "target tokens with EOS; None: the longest label, 20 for free text (released code)", minimum=1, maximum=MOST_TOKENS
    )
    targets: str = option("digits", "label strings: 'digits' (released code) or 'words' (T5's)", choices=("digits", "words"))
    split_seed: int = option(42, "of the permutation that halves the validation set or carves 1,000 rows (released code: 42)", minimum=0)
    few_shot: int | None = option(None, "train on this many examples, balanced over classes (Appendix B.2)", minimum=1)
    few_shot_rule: str | None = option(
        None,
        "'balanced' draws exactly --few_shot; 'released' draws k // classes of each, 30 of 32 with three classes (released code)",
        choices=("balanced", "released"),
    )
    group_by_length: bool = option(True, "batches of similar length (seeded); false: plain shuffling (released code)")
    eval_rows: int | None = option(None, "only the first rows of validation and test are evaluated; None: all (Section 4.1)", minimum=1)
    eval_every: int = option(1000, "steps between evaluations on the validation set (Appendix C)", minimum=1)
    scoring: str = option(
        "generate",
        "prediction by 'generate' (greedy, whole vocabulary: released code) or by label 'likelihood'",
        choices=("generate", "likelihood"),
    )
    max_new_tokens: int | None = option(
        None,
        "tokens generated; None: one more than the longest label, for free text max_target_len - 1 (released code)",
        minimum=1,
        maximum=MOST_TOKENS,
    )
    measure_offsets: bool = option(False, "record the sizes of embeddings and offsets over the training set (Table 2)")
    select_on: str | None = option(None, "validation metric that selects the checkpoint; None: the task's first (released code)")

    # What only some tasks read; None for the others
    stsb_rounding: float | None = option(
        None, "STS-B targets: 0.2 (T5), gold unrounded; or 0.1, gold rounded too (released code)", choices=(0.2, 0.1)
    )
    qa_references: str | None = option(
        None, "question answering: 'all' answers are right (max over them), or the 'first' alone (released code)", choices=("all", "first")
    )
    pad_punctuation: bool | None = option(
        None, "question answering: blanks around punctuation in texts and answers (released code, after T5)"
    )
    cut_references: bool | None = option(
        None, "free text: gold answers are cut to max_target_len tokens as predictions are (released code)"
    )
    squad_target: str | None = option(
        None, "SQuAD's target: the 'first' answer, or the answers' list as Python prints it (released code)", choices=("first", "printed")
    )
    record_scoring: str | None = option(
        None, "ReCoRD: by 'query', max over its answers; or by 'row', each with one answer (released code)", choices=("query", "row")
    )
    winogrande_options: str | None = option(
        None, "WinoGrande shows 'both' options, or option1 under both names (released code)", choices=("both", "first_twice")
    )
    scitail_test: str | None = option(
        None,
        "SciTail is tested on the second of the validation set's 'halves' (Appendix D) or on the 'hub' test set",
        choices=("halves", "hub"),
    )
    mbpp_prompt: str | None = option(
        None,
        "MBPP: signature and 'docstring' (MBXP; Appendix C) or the 'original' description with tests",
        choices=("docstring", "original"),
    )
    mbpp_cleanup: str | None = option(
        None,
        "MBPP: the second version of a sample ends at its 'return', or is freed of stray 'lines' (Llama-3)",
        choices=("return", "lines"),
    )
    temperature: float | None = option(None, "of sampling, 0: greedy (MBPP 0.6); samples depend on --eval_batch_size", minimum=0.0)
    top_p: float | None = option(None, "nucleus of sampling (MBPP 0.95)", minimum=0.01, maximum=1.0)
    samples: int | None = option(None, "programs drawn for each test row (MBPP 1; 10 or more for pass@10)", minimum=1, maximum=10_000)

    # Places and devices: no part of the run's id
    data_dir: str | None = option(
        None, "DIR/<task>/<split>.parquet or .jsonl are read before the hub is asked; 'fixtures': a few hand-written rows", place=True
    )
    results_dir: str = option("results", "RESULTS_DIR/runs/<run_id>.json is the run's record", place=True)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps", place=True)
    compile: bool = option(
        False, "compile the training step (torch.compile), on a GPU with CUDA graphs; losses change by rounding", place=True
    )
    checkpoint_activations: bool = option(
        False,
        "keep each block's input alone and run the block again in the backward pass: less memory, more time, same results",
        place=True,
    )
    shard_model: bool = option(
        False,
        "under torchrun: the processes share the frozen blocks' weights out among them (FSDP2), for models too large for one",
        place=True,
    )
    fold: bool = option(False, "evaluate with ADePT's network folded into the embedding table; results change by rounding", place=False)
    eval_batch_size: int = option(64, "examples per batch at evaluation", minimum=1, place=True)
    compare_scoring: bool = option(False, "score the test set by generation and by likelihood, and record how often they agree", place=True)
    allow_code_execution: bool = option(False, "permit scoring to run generated programs, confined by adept/metrics/sandbox", place=True)
    log_every: int = option(10, "steps between points of the training loss", minimum=1, place=True)
    save_every: int = option(
        1000,
        "steps between checkpoints that a killed run goes on from, one at least every 10 minutes; 0: only on a signal",
        minimum=0,
        place=True,
    )
    track: str = option("none", "'wandb' mirrors the run (WANDB_MODE=offline works)", choices=("none", "wandb"), place=True)
    wandb_project: str = option("adept", "wandb project", place=True)
    wandb_group: str | None = option(
        None, "wandb group; None: a sweep's table, else task-model, so that methods lie side by side", place=True
    )

    def __post_init__(self):
        hints = field_types()
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, check_value(field, hints[field.name], getattr(self, field.name)))

    @property
    def run_id(self) -> str:
        """Readable part plus 8 hex digits over every non-place field that differs from its dataclass default.

        Leaving defaults out keeps the ids of existing records when a field is added later.
        """
        identity = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if not f.metadata["place"]}
        identity = {name: value for name, value in identity.items() if value != FIELDS[name].default}
        identity["model"] = model_identity(self.model)
        if self.task_file is not None:  # by what it says, not by where it lies
            identity["task_file"] = file_identity(self.task_file)
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        label = model_label(self.model).encode(errors="ignore")[:100].decode(errors="ignore")  # a file's name has at most 255 bytes
        return f"{label}-{self.task}-{self.method}-{digest}"


FIELDS = {field.name: field for field in dataclasses.fields(RunConfig)}


@functools.cache
def field_types() -> dict[str, Any]:
    return typing.get_type_hints(RunConfig)


def model_label(model: str) -> str:
    return Path(model).name.lower()


@functools.cache
def model_identity(model: str) -> str:
    """Alias or hub id as it is; a local folder by its name, config, file sizes and samples of its weights, not by where it lies."""
    folder = Path(model)
    if not os.path.isdir(folder):  # not folder.is_dir(): it raises OSError for a name that no folder can have
        return model
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".bin"}):
        digest.update(f"{path.name}:{path.stat().st_size}".encode())
        if path.name == "config.json":
            digest.update(path.read_bytes())
        elif path.suffix != ".json":
            with open(path, "rb") as file:  # 64 places tell two fine-tuned models apart; all bytes of a large one would take minutes
                for part in range(64):
                    file.seek(path.stat().st_size * part // 64)
                    digest.update(file.read(4096))
    return f"{folder.name}@{digest.hexdigest()[:12]}"


@functools.cache  # a file that is edited while its run trains does not move the record
def file_identity(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def split_optional(hint: Any) -> tuple[type, bool]:
    """`int | None` -> (int, True), `int` -> (int, False)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        return inner, True
    return hint, False


def check_value(field: dataclasses.Field, hint: Any, value: Any) -> Any:
    """The value in the field's type. Raises UserError naming the flag, what came and what would be right."""
    kind, optional = split_optional(hint)
    if value is None:
        if optional:
            return None
        raise UserError(f"--{field.name} must be {describe(field, kind)}, not empty")
    if kind is bool and isinstance(value, str) and value.lower() in {"true", "false"}:
        value = value.lower() == "true"
    if kind in (int, float) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3 as a string, a command line everything.
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is not None and (kind is float or number.is_integer()):
            value = int(value) if kind is int and isinstance(value, str) and value.lstrip("+-").isdigit() else kind(number)
    choices, (low, high) = field.metadata["choices"], limits(field, kind)
    if (
        type(value) is not kind
        or (kind is float and not math.isfinite(value))
        or (choices and value not in choices)
        or value == ""
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        raise UserError(f"--{field.name} must be {describe(field, kind)}, not {value!r:.200}")
    if kind is str and re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", value):  # they would reach terminals through file names and records
        raise UserError(f"--{field.name} holds a control character: {value!r:.200}")
    if kind is str and SECRET.search(value):
        raise UserError(f"--{field.name} holds a password or token, which would be recorded; give it by the environment, as HF_TOKEN is")
    return value


def limits(field: dataclasses.Field, kind: type) -> tuple[float | None, float | None]:
    """(lowest, highest) value of a field, None where it has no such limit."""
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    return low, LARGEST if kind is int and high is None else high


def describe(field: dataclasses.Field, kind: type) -> str:
    if field.metadata["choices"]:
        return "one of " + ", ".join(str(choice) for choice in field.metadata["choices"])
    noun = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    low, high = limits(field, kind)
    bounds = [f">= {low}"] if low is not None else []
    bounds += [f"<= {high}"] if high is not None else []
    return " ".join([noun, " and ".join(bounds)]).strip()


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line: the nearest known name, else all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def first_line(error: BaseException, limit: int = 160) -> str:
    """The beginning of an error's text on one line."""
    return re.sub(r"\s+", " ", str(error)).strip()[:limit]


def reason(error: UserError | OSError) -> str:
    """What a command says before it exits with 2: a mistake of the user, or what the machine refuses (a full disk, a forbidden folder)."""
    return str(error if isinstance(error, UserError) else UserError(first_line(error)))


# Layers -----------------------------------------------------------------------------------------------------------------


LONGEST_YAML = 200_000
"""Bytes of a YAML file: some hundred times the longest of configs/, and read within seconds."""


class PlainLoader(yaml.SafeLoader):
    """YAML without its traps: a key written twice is an error, where YAML would keep the last one silently; and so is an alias, since a
    few lines of aliases of aliases stand for billions of values."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"write the value again in place of the alias *{event.anchor}{event.start_mark}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            [(key, _)] = Counter(self.construct_object(key, deep=deep) for key, _ in node.value).most_common(1)
            raise yaml.YAMLError(f"key '{key}' is written twice{node.start_mark}")
        return mapping

    def construct_yaml_int(self, node):
        number = super().construct_yaml_int(node)
        if number.bit_length() > 64:  # Python prints no number of some thousand digits, so no error line could name it
            raise yaml.YAMLError(f"a whole number of {number.bit_length():,} bits{node.start_mark}")
        return number


PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.construct_yaml_int)


def read_yaml(path: Path) -> dict:
    """A mapping from a YAML file. Raises UserError in one line."""
    try:
        with path.open("rb") as file:  # no read_text(): the file may be a device that never ends
            text = file.read(LONGEST_YAML + 1).decode("utf-8")
        if len(text) > LONGEST_YAML:
            raise UserError(f"{path} has more than {LONGEST_YAML:,} bytes; that is no file of fields")
        content = yaml.load(text, Loader=PlainLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # PyYAML's own errors, and Python's for a date that is none, for "!!bool maybe", for a thousand brackets.
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path} must hold 'field: value' lines, not a {type(content).__name__}")
    return content or {}


@functools.cache
def read_own_yaml(path: Path) -> dict:
    """A layer of the project's own, read once: a table resolves hundreds of runs."""
    return read_yaml(path)


def apply_layer(values: dict, layer: Mapping[str, Any], tags: set[str], source: str) -> None:
    """Writes one layer into `values`: plain keys, then the "@" blocks whose words are all in `tags`."""
    blocks = []
    for key, value in layer.items():
        if isinstance(key, str) and key.startswith("@"):
            if not isinstance(value, Mapping):
                raise UserError(f"{source}: '{key}' must hold 'field: value' lines")
            blocks.append((key, value))
        else:
            values[key] = checked(key, value, source)
    for key, block in blocks:
        block = {name: checked(name, value, f"{source}, {key}") for name, value in block.items()}
        words = {word.removeprefix("@") for word in key.split()}
        if unknown := words - known_tags() - tags:
            raise UserError(f"{source}: '{key}' names no method, task, group or model; {nearest(min(unknown), known_tags())}")
        if words <= tags:
            values.update(block)


def known_tags() -> set[str]:
    """What an "@" block may name, besides the run's own model."""
    from adept.methods import METHODS
    from adept.models import ALIASES, BUNDLED, TINY
    from adept.tasks import GROUPS, TASKS

    return {*METHODS, *TASKS, *GROUPS, *ALIASES, BUNDLED, *TINY}


def check_key(key: Any, source: str) -> None:
    if key not in FIELDS:
        raise UserError(f"{source}: unknown field '{key}'; {nearest(str(key), FIELDS)}")


def checked(key: Any, value: Any, source: str) -> Any:
    """A field's value as a file has it, in the field's type. Raises UserError that names the file."""
    check_key(key, source)
    try:
        return check_value(FIELDS[key], field_types()[key], value)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def resolve(flags: Mapping[str, Any], config_file: str | None = None, *, source: str = "command line") -> RunConfig:
    """The full RunConfig of a run from its flags (or a table's fields, named by `source`) and all layers below them.

    Raises UserError for unknown names, bad values, a flag that the method does not use, and a required value left empty.
    """
    from adept.methods import find_method, method_specific_fields
    from adept.tasks import find_task, task_specific_fields

    for key in flags:
        check_key(key, source)
    user_layer = read_yaml(Path(config_file)) if config_file else {}

    def chosen(name: str, otherwise: Any = None) -> str:
        value = flags.get(name, user_layer.get(name, otherwise or FIELDS[name].default))
        if value is dataclasses.MISSING:
            raise UserError(f"--{name} is missing, for example --{name} rte")
        return check_value(FIELDS[name], str, value)

    method = find_method(chosen("method"))
    if (file := flags.get("task_file", user_layer.get("task_file"))) is not None:
        from adept.task_file import read_task

        task = read_task(Path(check_value(FIELDS["task_file"], str, file)))
        if chosen("task", task.name) != task.name:
            raise UserError(f"--task {chosen('task')} and --task_file {file}, whose name is '{task.name}', are two tasks; give one")
    else:
        task = find_task(chosen("task"))
    protocols = {path.stem: path for path in (ROOT / "configs" / "protocol").glob("*.yaml")}
    if (protocol_file := protocols.get(chosen("protocol"))) is None:
        raise UserError(f"unknown protocol '{chosen('protocol')}'; {nearest(chosen('protocol'), protocols)}")
    tags = {task.name, *task.groups, chosen("method"), chosen("model"), model_label(chosen("model"))}

    values: dict[str, Any] = {}
    for path in (ROOT / "configs" / "base.yaml", protocol_file):
        apply_layer(values, read_own_yaml(path), tags, path.name)
    given: dict[str, Any] = {}
    apply_layer(given, user_layer, tags, str(config_file))
    given.update(flags)
    values.update(given)

    for part, used, known in (
        (f"method '{chosen('method')}'", method.fields, method_specific_fields()),
        (f"task '{task.name}'", tuple(task.switches), task_specific_fields()),
    ):
        for name in sorted(known - set(used)):
            if given.get(name) is not None:
                raise UserError(f"--{name} has no effect on {part}, which uses {', '.join(used) or 'none of them'}")
            values[name] = None
    if values.get("few_shot") is None:
        if given.get("few_shot_rule") is not None:
            raise UserError("--few_shot_rule has no effect without --few_shot")
        values["few_shot_rule"] = None
    if "steps" not in method.fields:
        values["steps"] = 0
    values["task"], values["method"] = task.name, chosen("method")
    for name, default in (("max_source_len", task.max_source_len), ("select_on", task.metrics[0])):
        values[name] = default if values.get(name) is None else values[name]
    if values["select_on"] not in task.metrics:
        raise UserError(f"--select_on '{values['select_on']}' is not a metric of {task.name}: {', '.join(task.metrics)}")
    if values.get("warmup_steps") is None:
        steps = check_value(FIELDS["steps"], int, values.get("steps", FIELDS["steps"].default))
        values["warmup_steps"] = min(500, steps // 10)
    if "offset_len" in method.fields and values.get("offset_len") is None:
        values["offset_len"] = values["max_source_len"]
    config = RunConfig(**values)
    check_method(config)
    require(config, task.switches, f"task '{config.task}'")
    task.check(config)
    return config


def check_method(config: RunConfig) -> None:
    """Raises UserError where the method is unknown, lacks a field that it reads, or cannot be run with these fields."""
    from adept.methods import find_method

    method = find_method(config.method)
    require(config, method.required, f"method '{config.method}'")
    method.check(config)


def require(config: RunConfig, names: Iterable[str], part: str) -> None:
    """Raises UserError where a field that `part` of the run reads is empty."""
    for name in names:
        if getattr(config, name) is None:
            raise UserError(f"{part} needs --{name}: {FIELDS[name].metadata['help']}")


# Command line -----------------------------------------------------------------------------------------------------------


class OneLineParser(argparse.ArgumentParser):
    """argparse whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def command_line(description: str, *, config_file: bool = True) -> OneLineParser:
    """A parser with one flag per RunConfig field, and --config unless the command has a table file."""
    parser = OneLineParser(description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    if config_file:
        parser.add_argument("--config", metavar="FILE", help="YAML file of fields, above the protocol and below the flags")
    for field in FIELDS.values():
        kind, _ = split_optional(field_types()[field.name])
        shown = "" if field.default in (None, dataclasses.MISSING) else f" [{field.default}]"
        alone = {"nargs": "?", "const": "true"} if kind is bool else {}  # --flag means --flag true
        metavar = "{" + ",".join(map(str, field.metadata["choices"])) + "}" if field.metadata["choices"] else kind.__name__
        parser.add_argument(f"--{field.name}", metavar=metavar, help=(field.metadata["help"] + shown).replace("%", "%%"), **alone)
    return parser


def parse(parser: OneLineParser, arguments: list[str]) -> tuple[dict[str, Any], argparse.Namespace]:
    """(RunConfig fields that were given, everything else). Raises UserError for an unknown flag, naming the nearest."""
    namespace, unknown = parser.parse_known_args(arguments)
    for word in unknown:
        if word.startswith("--"):
            flags = [name.removeprefix("--") for action in parser._actions for name in action.option_strings if name.startswith("--")]
            raise UserError(f"unknown flag {word.split('=')[0]}; {nearest(word.split('=')[0].removeprefix('--'), flags)}")
        raise UserError(f"unexpected word '{word}': flags look like --task rte")
    flags = {
        name: (None if value.lower() == "none" and split_optional(field_types()[name])[1] else value)
        for name, value in vars(namespace).items()
        if name in FIELDS
    }
    rest = argparse.Namespace(**{name: value for name, value in vars(namespace).items() if name not in FIELDS})
    return flags, rest
