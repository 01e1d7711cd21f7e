"""Every reader of files, given files that nobody wrote: each ends in a normal result or in a UserError, never in
another exception, never in a hang.

python -m pytest tests/test_fuzz.py --fuzz_seconds 600 -s      ten minutes over all readers; -s shows their numbers

Inputs are valid files with bytes flipped, cut, doubled or put in (`mutated`), and values of all kinds where a file has
its own (`rearranged`). Hypothesis draws them, the same ones in the same order every time, and reduces what fails to the
shortest.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import peft
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.torch
import torch
import yaml
from conftest import SIZES
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.config.run import task_of
from adept.data.dataset import load_data, render_rows
from adept.data.sources import read_rows
from adept.models.loading import load_model
from adept.models.tiny import fixture_rows
from adept.runs.adapter import DESCRIPTION, WEIGHTS, restore_adapter
from adept.runs.layout import run_folder
from adept.runs.peft_files import PEFT_DESCRIPTION
from adept.runs.record import SCHEMA, read_record, summary_line
from adept.serving.load import load
from adept.tables.early_stopping import best_until, evaluations
from adept.tables.significance import TestedRun
from adept.tables.table_file import load_table
from adept.tasks import TASKS
from adept.training.loop import run
from adept.training.optim import make_optimizer, parameter_groups
from adept.training.resume import Checkpoints, checksum
from adept.training.session import open_session

LONGEST = 10
"""Seconds that one file may take; most take some milliseconds."""


# Inputs ---------------------------------------------------------------------------------------------------------------

PIECES = [
    b"\0", b"\xff" * 8, b"\n", b"\r", b"\t", b" ", b"{", b"}", b"[", b"]", b'"', b"'", b",", b":", b": ", b"- ", b"|",
    b"#", b"&a ", b"*a", b"!!int ", b"!!bool ", b"!!float ", b"!!timestamp ", b"!!binary ", b"!!set ", b"!!omap ",
    b"!!python/object:os.system ", b"<<: ", b"? ", b"%YAML 9.9", b"---", b"...", b"@", b"null", b"NaN", b"Infinity",
    b"-1", b"0x" + b"f" * 40, b"1e999", b"9" * 30, b"9" * 5000, b"1:2:3", b"2024-02-30", b"\xed\xa0\x80", b"\\ud800",
    b"\\u0000", b"\xc3", b"\xef\xbb\xbf", "é".encode(), b"[" * 2000, b"F8_E4M3", b"BF16", b"I64", b"BOOL", b"C64",
    b"PAR1", b"../../x", b"hub:",
]  # fmt: skip
"""What means something to some reader."""


@st.composite
def mutated(draw, valid: bytes) -> bytes:
    """A valid file with one to four changes."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        # Half of the changes are made where a value begins: there a piece is more than a letter of some text.
        begins = [i + 1 for i, byte in enumerate(content) if byte in b":,[{\n "] if draw(st.booleans()) else []
        at = draw(st.integers(0, len(begins or content)))
        at = begins[at - 1] if begins else at
        end = min(len(content), at + draw(st.integers(1, 64)))
        match draw(
            st.sampled_from(("piece", "piece", "piece", "flip", "set", "replace", "cut", "remove", "double", "move"))
        ):
            case "flip" if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if at < len(content):
                content[at] = draw(st.integers(0, 255))
            case "piece":
                content[at:at] = draw(st.sampled_from(PIECES))
            case "replace":
                content[at:end] = draw(st.binary(max_size=64) | st.sampled_from(PIECES))
            case "cut":
                del content[at:]
            case "remove":
                del content[at:end]
            case "double":
                content[at:at] = content[at:end]
            case "move":
                place = draw(st.integers(0, len(content)))
                content[place:place] = content[at:end]
    return bytes(content)


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 10**400, 1e-320, 1e308])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "",
            " ",
            "none",
            "auto",
            "rte",
            "adept",
            "@glue",
            "\ud800",
            "\0",
            "a\nb",
            "../../x",
            "x" * 5000,
            "\x1b[2J",
            "é",
            "I32",
            "BF16",
        ]
    )
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def rearranged(draw, valid: object) -> object:
    """A JSON value with one to three of its parts replaced, removed, doubled or renamed."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        place, key = value, None
        while isinstance(place, dict | list) and place:
            holder, keys = place, list(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(keys))
            place = place[key]
            if draw(st.booleans()):
                break
        if key is None:
            return draw(VALUES)
        match draw(st.sampled_from(("replace", "replace", "remove", "rename"))):
            case "replace":
                holder[key] = draw(VALUES)
            case "remove":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.text(max_size=10))] = holder.pop(key)
    return value


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def as_safetensors(data: bytes) -> Callable[[object], bytes]:
    """Writes a header before the tensors' bytes."""
    return lambda header: len(text := as_json(header)).to_bytes(8, "little") + text + data


def as_yaml(value: object) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode(errors="surrogatepass")


def as_lines(rows: list) -> bytes:
    return b"".join(as_json(row) + b"\n" for row in (rows if isinstance(rows, list) else [rows]))


def as_parquet(rows: list) -> bytes:
    """Where the rows are no table, their text is."""
    try:
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, file := io.BytesIO())
    except Exception:
        table = pyarrow.table({"sentence1": list(map(repr, rows)) if isinstance(rows, list) else [repr(rows)]})
        pyarrow.parquet.write_table(table, file := io.BytesIO())
    return file.getvalue()


def files(
    valid: bytes, structure: object = None, write: Callable[[object], bytes] | None = None
) -> st.SearchStrategy[bytes]:
    """Mutations of a valid file and, where its structure is given, files of rearranged structures."""
    return mutated(valid) if write is None else mutated(valid) | rearranged(structure).map(write)


# Readers --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """The file at `path` is drawn from `inputs`, then `read()` runs."""

    path: Path
    inputs: st.SearchStrategy[bytes]
    read: Callable[[], object]


def adapter_weights(world: Path) -> Reader:
    """adapter.safetensors, as --init_from reads it."""
    folder = Path(shutil.copytree("trained", "adapter"))
    session = open_session(resolve({"task": "rte", "model": "t5", "device": "cpu", **SIZES["adept"]}))
    content = (path := folder / WEIGHTS).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    inputs = files(content, json.loads(content[8:start]), as_safetensors(content[start:]))
    return Reader(path, inputs, lambda: restore_adapter(session.model, folder))


def foreign_weights(world: Path) -> Reader:
    """adapter_model.bin."""
    folder = Path("foreign")
    folder.mkdir()
    session = open_session(resolve({"task": "rte", "model": "t5", "device": "cpu", "method": "pt", "prompt_len": 5}))
    torch.save({"prompt_embeddings": torch.ones(5, 32)}, path := folder / "adapter_model.bin")
    return Reader(path, files(path.read_bytes()), lambda: restore_adapter(session.model, folder))


def adapter_description(world: Path) -> Reader:
    """adapter.json, as load reads it."""
    folder = Path(shutil.copytree("trained", "adapter"))
    path = folder / DESCRIPTION
    valid = path.read_bytes()
    return Reader(path, files(valid, json.loads(valid), as_json), lambda: load("adapter", model="t5", device="cpu"))


def peft_description(world: Path) -> Reader:
    """adapter_config.json of a LoRA, as load reads it."""
    model, _ = load_model("t5")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q"]))
    adapted.save_pretrained(folder := Path("peft"))
    path = folder / PEFT_DESCRIPTION
    valid = path.read_bytes()
    given = {"task": "rte", "model": "t5", "device": "cpu"}
    return Reader(path, files(valid, json.loads(valid), as_json), lambda: load("peft", **given))


def run_record(world: Path) -> Reader:
    """RESULTS_DIR/runs/<run_id>.json."""
    (folder := Path("results/runs")).mkdir(parents=True)
    valid = Path("trained").resolve().with_suffix(".json").read_bytes()
    run_id = json.loads(valid)["run_id"]
    return Reader(
        folder / f"{run_id}.json",
        files(valid, json.loads(valid), as_json),
        lambda: summary_line(read_record("results", run_id)),
    )


def log(world: Path) -> Reader:
    """metrics.jsonl of a run that goes on, as early stopping reads it: what cannot be read counts as not written."""
    path = run_folder("results", "rival") / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    entries = [
        {"step": step, kind: value}
        for step in (2, 4)
        for kind, value in (("train/loss", 0.5), ("validation/accuracy", 60.0))
    ]

    def read() -> None:
        scores = evaluations("results", "rival", "accuracy")
        best_until(4, scores)
        if not scores:
            raise UserError("nothing is known of it")

    return Reader(path, files(as_lines(entries), entries, as_lines), read)


def predictions(world: Path) -> Reader:
    """predictions.jsonl, as the significance of a difference reads it."""
    record = json.loads(Path("trained").resolve().with_suffix(".json").read_text())
    path = run_folder("results", record["run_id"]) / "predictions.jsonl"
    path.parent.mkdir(parents=True)
    valid = Path("trained/predictions.jsonl").read_bytes()
    rows = [json.loads(line) for line in valid.splitlines()]
    return Reader(path, files(valid, rows, as_lines), lambda: TestedRun(record, "results").score("accuracy"))


def training_state(world: Path) -> Reader:
    """checkpoint.safetensors, as a killed run reads it. Half of the files have a checksum that is right."""
    shape = {
        "steps": 3,
        "eval_every": 2,
        "batch_size": 4,
        "max_source_len": 64,
        "eval_rows": 4,
        "save_every": 1,
        "bottleneck_dropout": 0.1,
    }
    config = resolve({"task": "rte", "model": "t5", "data_dir": "data", "device": "cpu", **SIZES["adept"], **shape})
    kept = Checkpoints.remove
    Checkpoints.remove = lambda _: None
    try:
        run(config)
    finally:
        Checkpoints.remove = kept
    session = open_session(config)
    groups = parameter_groups(session.model, config.method_options.learning_rates())
    optimizer = make_optimizer(groups, config)
    checkpoints = Checkpoints(run_folder("results", config.run_id), session, optimizer, "")
    path = checkpoints.newest
    checkpoints.previous.unlink()
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    stored = json.loads(header["__metadata__"]["state"])
    checkpoints.identity = {name: stored[name] for name in checkpoints.identity}
    tensors = safetensors.torch.load(content)

    def sealed(text: object) -> bytes:
        """The checkpoint with another JSON, or text in its place."""
        text = text if isinstance(text, str) else json.dumps(text)
        text = text.encode(errors="replace").decode()
        return safetensors.torch.save(tensors, {"schema": str(SCHEMA), "crc": checksum(tensors, text), "state": text})

    def resealed(header: object) -> bytes:
        """The checkpoint with another header, and the checksum that belongs to it where the file can be read."""
        file = as_safetensors(content[start:])(header)
        try:
            others, (text,) = safetensors.torch.load(file), [header["__metadata__"]["state"]]
            return safetensors.torch.save(others, {**header["__metadata__"], "crc": checksum(others, text)})
        except Exception:
            return file

    headers, texts = rearranged(header).map(resealed), rearranged(stored).map(sealed)
    states = rearranged(stored["state"]).map(lambda state: sealed({**stored, "state": state}))
    inputs = mutated(content) | headers | texts | states
    return Reader(path, inputs, checkpoints.load)


TASK = {
    "name": "jokes", "files": {"train": "t.csv", "validation": "t.csv", "test": "t.csv"},
    "text": ["title", {"joke": "body"}], "label": "funny", "labels": {"dull": 0, "funny": 1},
    "metrics": ["accuracy", "f1"], "report": "f1", "max_source_len": 64, "cue": "so:", "split": "native",
    "splits": ["train", "validation", "test"],
}  # fmt: skip
JOKES = 'title,body,funny\nT,knock knock,0\nT,"who\'s\nthere",1\nT,é,1\n'


def task_file(world: Path) -> Reader:
    """--task_file, with its data."""
    Path("t.csv").write_text(JOKES)

    def read() -> None:
        config = resolve({"task_file": "jokes.yaml"})
        load_data(task_of(config), config)

    return Reader(Path("jokes.yaml"), files(as_yaml(TASK), TASK, as_yaml), read)


def csv_file(world: Path) -> Reader:
    """A task file's .csv."""
    Path("jokes.yaml").write_bytes(as_yaml(TASK))
    config = resolve({"task_file": "jokes.yaml"})
    task = task_of(config)
    return Reader(Path("t.csv"), files(JOKES.encode()), lambda: load_data(task, config))


LAYER = {
    "seed": 7, "batch_size": 16, "prompt_lr": "1e-1", "precision": "bf16", "group_by_length": False, "few_shot": None,
    "data_dir": "data", "@adept": {"bottleneck": 8, "prompt_len": 20}, "@glue": {"eval_every": 5},
    "@dept @mrqa": {"rank": 24}, "wandb_group": "mine",
}  # fmt: skip


def yaml_layer(world: Path) -> Reader:
    """--config."""
    return Reader(
        Path("mine.yaml"), files(as_yaml(LAYER), LAYER, as_yaml), lambda: resolve({"task": "rte"}, "mine.yaml").run_id
    )


TABLE = {
    "title": "Small", "note": "n", "fields": {"task": "rte", "model": "t5"}, "rows": "method",
    "columns": ["task", "quantity"],
    "grid": [
        {"method": "pt", "prompt_len": [5, 9]},
        {"name": "a", "cases": [{"prompt_len": 5, "bottleneck": 3}]},
        {"from": "a"},
    ],
    "seeds": [42, 43], "quantities": ["score", "trained parameters"], "means": {"mean": ["rte"]},
    "labels": {"pt": "PT"},
}  # fmt: skip


def table_file(world: Path) -> Reader:
    """A table's YAML, with its runs."""

    def read() -> None:
        load_table(Path("table.yaml"), {}).runs()

    return Reader(Path("table.yaml"), files(as_yaml(TABLE), TABLE, as_yaml), read)


def local_data(suffix: str, write: Callable[[list], bytes]) -> Callable[[Path], Reader]:
    """A file of --data_dir: some task's fixture rows, read by every task."""

    def reader(world: Path) -> Reader:
        path = Path(f"train.{suffix}")
        configs = [resolve({"task": name, "allow_code_execution": TASKS[name].runs_code}) for name in TASKS]
        inputs = st.one_of([files(write(rows), rows, write) for name in TASKS if (rows := fixture_rows(name))])

        def read() -> None:
            rows = read_rows(path)
            refusals = []
            for config in configs:  # the row's own task and all others, which find no column of theirs
                try:
                    render_rows(task_of(config), "train", rows, str(path))
                except UserError as error:
                    refusals.append(error)
            if len(refusals) == len(configs):
                raise refusals[0]

        return Reader(path, inputs, read)

    reader.__doc__ = f"{suffix} files of --data_dir, by every task."
    return reader


READERS: dict[str, Callable[[Path], Reader]] = {
    "adapter.safetensors": adapter_weights,
    "adapter_model.bin": foreign_weights,
    "adapter.json": adapter_description,
    "adapter_config.json": peft_description,
    "checkpoint.safetensors": training_state,
    "run record": run_record,
    "metrics.jsonl": log,
    "predictions.jsonl": predictions,
    "task file": task_file,
    "table file": table_file,
    "YAML layer": yaml_layer,
    "jsonl": local_data("jsonl", as_lines),
    "parquet": local_data("parquet", as_parquet),
    "csv": csv_file,
}


# The test -------------------------------------------------------------------------------------------------------------


class Hang(BaseException):
    """No Exception, so that no reader takes it for what a torn file raises."""


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    def ring(*_):
        raise Hang(f"a file took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(reader: Reader, seconds: float) -> Counter:
    """{"read", "refused": number of files}. Raises what a reader raises beside UserError, with its file."""
    counts: Counter = Counter()
    end = time.monotonic() + seconds

    def one(content: bytes) -> None:
        if (
            time.monotonic() > end and not counts["failed"]
        ):  # what fails is reduced to its shortest, however long that takes
            return
        reader.path.write_bytes(content)
        with alarm(LONGEST):
            try:
                reader.read()
                counts["read"] += 1
            except UserError as error:
                assert len(str(error).splitlines()) == 1
                counts["refused"] += 1
            except BaseException:
                counts["failed"] += 1
                raise

    for number in itertools.count():
        options = settings(
            max_examples=200,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        hypothesis.seed(number)(options(given(reader.inputs)(one)))()
        if time.monotonic() > end:
            return counts


@pytest.mark.parametrize("name", READERS)
def test_any_file_is_read_or_refused(name, world, request):
    counts = fuzz(READERS[name](world), request.config.getoption("--fuzz_seconds") / len(READERS))
    print(f"\n{name}: {counts.total():,} files, {counts['read']:,} read, {counts['refused']:,} refused")
    assert counts["refused"] > 0
