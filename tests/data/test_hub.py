"""The real loading code against a hub on loopback: ids, configs, columns, revisions, cache, and what a user sees when
it fails.

HF_ENDPOINT and the cache's place are read when huggingface_hub is imported, so loading happens in worker processes of
their own.
"""

import io
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import safetensors.torch
from conftest import ROOT
from loopback_hub import NEW, OLD, Files, Hub, Repository, environment

from adept.config.layers import resolve
from adept.config.run import task_of
from adept.data.dataset import load_data
from adept.models.tiny import fixture_rows
from adept.tasks import TASKS
from adept.tasks.mbpp import MBXP

MODEL = "google-t5/t5-base"

# What it holds --------------------------------------------------------------------------------------------------------


def parquet(rows: list[dict]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def card(**metadata) -> bytes:
    """A README.md with its YAML head, which JSON is, too."""
    return f"---\n{json.dumps(metadata)}\n---\n# A data set\n".encode()


def config_entry(config: str, splits: list[str]) -> dict:
    return {"config_name": config, "data_files": [{"split": split, "path": f"{config}/{split}-*"} for split in splits]}


def described(config: str, rows: dict[str, list[dict]], classes: list[str]) -> dict:
    """A config's "dataset_info" as the hub's own converter writes it: typed columns, and checked row counts."""
    types = {int: "int64", str: "string"}
    columns = {name: types[type(value)] for name, value in next(iter(rows.values()))[0].items()}
    columns["label"] = {"class_label": {"names": {str(number): name for number, name in enumerate(classes)}}}
    return {
        "config_name": config,
        "features": [{"name": name, "dtype": dtype} for name, dtype in columns.items()],
        "splits": [{"name": split, "num_bytes": 1, "num_examples": len(part)} for split, part in rows.items()],
        "download_size": 1,
        "dataset_size": 1,
    }


def marked(task: str, column: str, split: str, count: int, commit: str = NEW, **changes) -> list[dict]:
    """The task's fixture rows repeated to `count`; each says in `column` where it stands."""
    fixtures = fixture_rows(task)
    rows = [{"idx": i, **fixtures[i % len(fixtures)], **changes} for i in range(count)]
    return [{**row, column: f"{row[column]} [{split} {i} of {commit[-1]}]"} for i, row in enumerate(rows)]


def program(number: int) -> dict:
    """A row of MBPP's original form."""
    return {
        "task_id": number,
        "text": f"Write function number {number}.",
        "code": f"def f{number}(x):\r\n    return x",
        "test_list": [f"assert f{number}(1) == 1"],
        "test_setup_code": "",
        "challenge_test_list": [],
    }


def rte(commit: str, train: int, validation: int) -> dict[str, list[dict]]:
    return {
        "train": marked("rte", "sentence1", "train", train, commit),
        "validation": marked("rte", "sentence1", "validation", validation, commit),
        "test": marked("rte", "sentence1", "unlabelled", 5, commit, label=-1),
    }


ROWS: dict[str, dict[str, list[dict]]] = {
    "rte": rte(NEW, 12, 7),
    "rte at v1": rte(OLD, 10, 6),
    "mnli": {
        "train": marked("mnli", "premise", "train", 9),
        "validation_matched": marked("mnli", "premise", "matched", 6),
        "validation_mismatched": marked("mnli", "premise", "mismatched", 5),
        "test_matched": marked("mnli", "premise", "unlabelled", 4, label=-1),
        "test_mismatched": marked("mnli", "premise", "unlabelled", 3, label=-1),
    },
    "cola": {"train": marked("cola", "sentence", "train", 3)},
    "wsc": {
        "train": marked("wsc", "text", "train", 8),
        "validation": marked("wsc", "text", "validation", 6),
        "test": marked("wsc", "text", "unlabelled", 5, label=-1),
    },
    "record": {
        "train": marked("record", "query", "train", 1010),
        "validation": marked("record", "query", "validation", 6),
    },
    "newsqa": {
        "train": marked("newsqa", "question", "train", 1008),
        "validation": marked("newsqa", "question", "validation", 5),
    },
    "scitail": {
        split: marked("scitail", "sentence1", split, count)
        for split, count in (("train", 8), ("validation", 6), ("test", 5))
    },
    "mbpp": {"mbxp_mbpp_release_v1": fixture_rows("mbpp") * 3},
    "mbpp, original": {"google_mbpp": [program(number) for number in range(1, 15)]},
}
"""Task -> split -> rows, in the columns that the hub has. CoLA lacks its validation."""

MBPP_PARTS = {"train": (11, 14), "test": (4, 8), "validation": (9, 10), "prompt": (1, 3)}  # first and last task id


def shards(folder: str, rows: dict[str, list[dict]], count: int = 1, suffix: str = "") -> Files:
    """<folder>/<split>-00000-of-00001.parquet and so on."""
    files = {}
    for split, part in rows.items():
        bounds = [len(part) * i // count for i in range(count + 1)]
        for i in range(count):
            files[f"{folder}/{split}-{i:05}-of-{count:05}{suffix}.parquet"] = parquet(part[bounds[i] : bounds[i + 1]])
    return files


def with_configs(configs: dict[str, dict[str, list[dict]]], **metadata) -> Files:
    """A folder per config, named in the README's head."""
    files = {
        "README.md": card(configs=[config_entry(config, list(rows)) for config, rows in configs.items()], **metadata)
    }
    for config, rows in configs.items():
        files |= shards(config, rows)
    return files


def glue(rte_rows: dict[str, list[dict]]) -> Files:
    typed = [
        described("rte", rte_rows, ["entailment", "not_entailment"]),
        described("mnli", ROWS["mnli"], ["entailment", "neutral", "contradiction"]),
    ]
    return with_configs({"cola": ROWS["cola"], "mnli": ROWS["mnli"], "rte": rte_rows}, dataset_info=typed)


def original_mbpp() -> Files:
    parts = {part: [program(number) for number in range(first, last + 1)] for part, (first, last) in MBPP_PARTS.items()}
    paths = [
        {"split": part, "path": f"full/{part}-00000-of-00001.parquet"} for part in parts
    ]  # whole names, no patterns
    readme = card(configs=[{"config_name": "full", "data_files": paths}, config_entry("sanitized", ["test"])])
    return {"README.md": readme, **shards("full", parts), **shards("sanitized", {"test": [{"task_id": 1}]})}


REPOSITORIES = {
    "nyu-mll/glue": Repository({OLD: glue(ROWS["rte at v1"]), NEW: glue(ROWS["rte"])}),
    "aps/super_glue": Repository(
        {
            NEW: with_configs(
                {"boolq": {"train": fixture_rows("boolq")}, "wsc.fixed": ROWS["wsc"], "record": ROWS["record"]}
            )
        }
    ),
    "lucadiliello/newsqa": Repository(
        {NEW: {".gitattributes": b"", **shards("data", ROWS["newsqa"], 2, "-0123456789abcdef")}}
    ),
    "allenai/scitail": Repository(
        {
            NEW: with_configs(
                {"dgem_format": {"train": [{"premise": "a", "label": "neutral"}]}, "snli_format": ROWS["scitail"]}
            )
        }
    ),
    "google-research-datasets/mbpp": Repository({NEW: original_mbpp()}),
    "faulty/asks_for_a_login": Repository({}, refusal=(401, "GatedRepo")),
    "faulty/asks_for_consent": Repository({}, refusal=(403, "GatedRepo")),
    "faulty/breaks": Repository({}, refusal=(500, "InternalError")),
    "faulty/script": Repository({NEW: {"README.md": card(), "script.py": b"import datasets"}}),
    "faulty/empty": Repository({NEW: {"README.md": b"# Soon"}}),
    "faulty/no_parquet": Repository(
        {NEW: with_configs({"rte": ROWS["rte"]}) | {"rte/train-00000-of-00001.parquet": b"PAR1, or not"}}
    ),
    "faulty/two_kinds_of_rows": Repository({NEW: with_configs({"rte": {**ROWS["rte"], "test": [{"sentence": "a"}]}})}),
    "faulty/card": Repository({NEW: {**with_configs({"rte": ROWS["rte"]}), "README.md": b"---\nconfigs: [\n---\n"}}),
    "faulty/hangs_up": Repository({NEW: with_configs({"rte": ROWS["rte"]})}, cut="rte/train-00000-of-00001.parquet"),
}


@pytest.fixture(scope="module")
def hub(model_folders) -> Iterator[Hub]:
    newer = {path.name: path.read_bytes() for path in Path(model_folders["t5"]).iterdir()}
    weights = safetensors.torch.load(newer["model.safetensors"])
    doubled = safetensors.torch.save({name: 2 * tensor for name, tensor in weights.items()}, {"format": "pt"})
    served = {**REPOSITORIES, MODEL: Repository({OLD: {**newer, "model.safetensors": doubled}, NEW: newer})}
    mbxp = "".join(json.dumps(row) + "\n" for row in ROWS["mbpp"]["mbxp_mbpp_release_v1"])
    server = Hub(served, {MBXP.removeprefix("https:/"): mbxp.encode()})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


# The processes that ask it --------------------------------------------------------------------------------------------

WORKER = """
import socket, time

waits = []
time.sleep = waits.append  # a library's pauses between retries are counted, not waited for
lookup = socket.getaddrinfo

def on_loopback(host, *arguments, **named):
    if not str(host).endswith("127.0.0.1"):  # datasets asks "datasets-server.127.0.0.1", too
        raise OSError(f"{host} is not on loopback")
    return lookup("127.0.0.1", *arguments, **named)

socket.getaddrinfo = on_loopback

import dataclasses, json, os, sys, traceback
import datasets
from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.data.dataset import load_data
from adept.config.run import task_of
from adept.models.loading import load_model
from adept.tasks import TASKS

load_dataset = datasets.load_dataset

def from_loopback(*arguments, data_files=None, **named):
    if data_files is None:
        return load_dataset(*arguments, **named)
    elsewhere = data_files.replace("https://", os.environ["HF_ENDPOINT"].replace("127.", "files.127.") + "/")
    return load_dataset(*arguments, data_files=elsewhere, **named)

datasets.load_dataset = from_loopback

def work(kind, flags, changes):
    if kind == "model":
        config = resolve(flags)
        model, tokenizer = load_model(config.model, revision=config.model_revision)
        return {"total": sum(p.double().sum().item() for p in model.parameters()), "ids": tokenizer("a film").input_ids}
    row = TASKS[flags["task"]]
    TASKS[row.name] = dataclasses.replace(row, **changes)
    try:
        config = resolve(flags)
        return dataclasses.asdict(load_data(task_of(config), config))
    finally:
        TASKS[row.name] = row

for line in sys.stdin:
    del waits[:]
    try:
        answer = work(*json.loads(line))
    except UserError as error:
        answer = {"error": str(error)}
    except Exception:
        answer = {"traceback": traceback.format_exc()}
    print(json.dumps({**answer, "waited": sum(waits)}), flush=True)
"""


class Worker:
    """A process that loads what it is told to; `requests` of an answer are those that reached the hub meanwhile."""

    def __init__(self, home: Path, endpoint: str, hub: Hub | None = None, **more: str):
        self.hub, self.known = hub, {}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], env=environment(home, endpoint, **more), cwd=home,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(self, kind: str, flags: dict, changes: dict | None = None) -> dict:
        """{"train": ..., "origin": ..., "requests": [...]}, or {"error": the UserError's text}. The same question is
        asked once.
        """
        line = json.dumps([kind, flags, changes or {}])
        if line not in self.known:
            before = len(self.hub.requests) if self.hub else 0
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            watchdog = threading.Timer(60, self.process.kill)
            watchdog.start()
            printed = self.process.stdout.readline()
            watchdog.cancel()
            assert printed, f"no answer to {line}"
            self.known[line] = {**json.loads(printed), "requests": self.hub.requests[before:] if self.hub else []}
        answer = self.known[line]
        assert "traceback" not in answer, answer["traceback"]
        return answer

    def data(self, task: str, changes: dict | None = None, **flags) -> dict:
        allowed = {"allow_code_execution": True} if TASKS[task].runs_code else {}
        return self.ask("data", {"task": task, **allowed, **flags}, changes)

    def close(self):
        self.process.kill()  # torch takes seconds to end by itself
        self.process.communicate()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hub-home")


@pytest.fixture(scope="module")
def online(hub, home) -> Iterator[Worker]:
    worker = Worker(home, hub.endpoint, hub)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def offline(hub, home, online) -> Iterator[Worker]:
    """A worker without a network, beside a cache that holds RTE of main and of v1, and NewsQA."""
    for task, flags in (("rte", {}), ("rte", {"data_revision": "v1"}), ("newsqa", {})):
        online.data(task, **flags)
    worker = Worker(home, hub.endpoint, hub, HF_HUB_OFFLINE="1")
    yield worker
    worker.close()


def fingerprint_on_disk(folder: Path, task: str, rows: str | None = None, **flags) -> str:
    """Of the same rows read through --data_dir."""
    (folder / task).mkdir()
    for split, part in ROWS[rows or task].items():
        (folder / task / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    allowed = {"allow_code_execution": True} if TASKS[task].runs_code else {}
    config = resolve({"task": task, "data_dir": str(folder), **allowed, **flags})
    return load_data(task_of(config), config).fingerprint


def downloaded(answer: dict) -> set[str]:
    """Paths of the data files whose content was fetched."""
    return {
        request.path
        for request in answer["requests"]
        if request.method == "GET" and request.path.endswith((".parquet", ".jsonl"))
    }


def sources(answer: dict) -> dict[str, str]:
    return {example["id"]: example["source"] for part in ("train", "validation", "test") for example in answer[part]}


def sizes(answer: dict) -> tuple[int, int, int]:
    return len(answer["train"]), len(answer["validation"]), len(answer["test"])


# Layouts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    task: str
    origin: str
    sizes: tuple[int, int, int]
    example: tuple[str, str]  # an id and its source
    files: tuple[str, ...]  # the only data files fetched
    flags: dict[str, str] = field(default_factory=dict)
    rows: str | None = None  # key of ROWS, where it is not the task


def paths(folder: str, *splits: str, end: str = "-00000-of-00001.parquet") -> tuple[str, ...]:
    repository, _, inside = folder.partition(":")
    return tuple(f"/datasets/{repository}/resolve/{NEW}/{inside}/{split}{end}" for split in splits)


LAYOUTS = {
    "one of several configs": Layout(
        "rte", "hub:nyu-mll/glue/rte", (12, 3, 4),
        ("train:4", "sentence1: The ferry to Hallig leaves at noon and takes an hour. [train 4 of 2] "
                    "sentence2: The ferry takes an hour."),
        paths("nyu-mll/glue:rte", "train", "validation", "test"),
    ),
    "extra splits": Layout(
        "mnli", "hub:nyu-mll/glue/mnli", (9, 5, 6),
        ("validation_matched:1", "premise: Two boys flew a kite on the hill. [matched 1 of 2] "
                                 "hypothesis: The boys are brothers."),
        paths("nyu-mll/glue:mnli", *ROWS["mnli"]),
    ),
    "a dot in the config's name": Layout(
        "wsc", "hub:aps/super_glue/wsc.fixed", (8, 3, 3),
        ("train:0", "text: The cat slept on * the mat * because # it # was warm. [train 0 of 2]"),
        paths("aps/super_glue:wsc.fixed", "train", "validation", "test"),
    ),
    "lists and structs": Layout(
        "record", "hub:aps/super_glue/record", (17, 2002, 12),
        ("validation:0:0",
         "record query: People cheered when @placeholder left the ship. [validation 0 of 2] "
         "entities: Aurora, Port Ellen, Ida Berg passage: The ferry Aurora reached Port Ellen on Monday. "
         "Captain Ida Berg thanked her crew. Aurora arrives a day early. Ida Berg thanks the crew"),
        paths("aps/super_glue:record", "train", "validation"),
    ),
    "no config, two shards": Layout(
        "newsqa", "hub:lucadiliello/newsqa/None", (8, 1000, 5),
        ("validation:1",
         "question: Who said it ' s cold ? [ validation 1 of 2 ] "
         "context: ( Port News ) - - \" It ' s cold , \" the mayor said ."),
        (*paths("lucadiliello/newsqa:data", "train", "validation", end="-00000-of-00002-0123456789abcdef.parquet"),
         *paths("lucadiliello/newsqa:data", "train", "validation", end="-00001-of-00002-0123456789abcdef.parquet")),
    ),
    "a test split that the paper does not use": Layout(
        "scitail", "hub:allenai/scitail/snli_format", (8, 3, 3),
        ("train:0", "premise: Plants take in carbon dioxide and give off oxygen. [train 0 of 2] "
                    "hypothesis: Plants give off oxygen."),
        paths("allenai/scitail:snli_format", "train", "validation", "test"),
    ),
    "a split expression": Layout(
        "mbpp", "hub:google-research-datasets/mbpp/full", (7, 0, 7),
        ("google_mbpp:10", "You are an expert Python programmer, and here is your task: Write function number 11. "
                           "Your code should pass these tests:\n\nassert f11(1) == 1\n[BEGIN]\n"),
        paths("google-research-datasets/mbpp:full", *MBPP_PARTS),
        {"mbpp_prompt": "original"}, "mbpp, original",
    ),
    "a file behind an address": Layout(
        "mbpp", MBXP, (3, 0, 3),
        ("mbxp_mbpp_release_v1:2", fixture_rows("mbpp")[0]["prompt"]),
        (MBXP.removeprefix("https:/"),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_task_is_read_from_its_own_id_and_config_and_from_no_other(layout, online, tmp_path):
    answer = online.data(layout.task, **layout.flags)
    assert answer["origin"] == layout.origin
    assert sizes(answer) == layout.sizes
    name, source = layout.example
    assert sources(answer)[name] == source
    assert downloaded(answer) == set(layout.files)
    hub_id = TASKS[layout.task].hub[0] if not layout.rows else "google-research-datasets/mbpp"
    asked = [request.path for request in answer["requests"] if request.path not in (*layout.files, "/info")]
    assert [path for path in asked if not re.match(rf"(/api)?/datasets/{hub_id}(/|$)", path)] == []
    assert fingerprint_on_disk(tmp_path, layout.task, layout.rows, **layout.flags) == answer["fingerprint"]


def test_unlabelled_and_other_splits_never_reach_an_example(online):
    answer = online.data("mnli")
    parts = {
        part: {example["id"].split(":")[0] for example in answer[part]} for part in ("train", "validation", "test")
    }
    assert parts == {"train": {"train"}, "validation": {"validation_mismatched"}, "test": {"validation_matched"}}
    texts = [text for task in ("mnli", "rte", "wsc") for text in sources(online.data(task)).values()]
    assert "unlabelled" not in " ".join(texts)


def test_scitail_takes_the_hubs_test_split_when_told(online, tmp_path):
    answer = online.data("scitail", scitail_test="hub")
    assert sizes(answer) == (8, 6, 5)
    assert [example["id"] for example in answer["test"]] == [f"test:{i}" for i in range(5)]
    assert answer["fingerprint"] == fingerprint_on_disk(tmp_path, "scitail", scitail_test="hub")


def test_original_mbpp_is_in_the_order_of_its_task_ids(online):
    answer = online.data("mbpp", mbpp_prompt="original")
    numbers = [
        int(re.search(r"number (\d+)", example["source"]).group(1)) for example in answer["train"] + answer["test"]
    ]
    assert numbers == list(range(1, 15))
    assert answer["train"][0]["references"] == ["", "assert f1(1) == 1", "f1"]


def test_class_labels_come_as_numbers(online):
    """The hub's typed columns (ClassLabel) hold ids, not names."""
    assert [example["target"] for example in online.data("rte")["train"][:4]] == ["0", "1", "0", "1"]


# Revisions ------------------------------------------------------------------------------------------------------------


def test_a_data_revision_fetches_that_commits_rows(online, tmp_path):
    newest, pinned, by_tag = (
        online.data("rte"),
        online.data("rte", data_revision=OLD),
        online.data("rte", data_revision="v1"),
    )
    assert pinned["origin"] == f"hub:nyu-mll/glue/rte@{OLD}"
    assert by_tag["origin"] == "hub:nyu-mll/glue/rte@v1"
    found = [set(answer["files"].values()) for answer in (newest, pinned, by_tag)]
    assert found == [{f"hub:nyu-mll/glue/rte{revision}"} for revision in (f"@{NEW}", f"@{OLD}", f"@v1@{OLD}")]
    assert sizes(newest) == (12, 3, 4)
    assert sizes(pinned) == sizes(by_tag) == (10, 3, 3)
    assert "[train 0 of 1]" in sources(by_tag)["train:0"]
    assert (
        pinned["fingerprint"]
        == by_tag["fingerprint"]
        == fingerprint_on_disk(tmp_path, "rte", "rte at v1")
        != newest["fingerprint"]
    )
    assert downloaded(pinned) | downloaded(by_tag) == {
        path.replace(NEW, OLD) for path in LAYOUTS["one of several configs"].files
    }


def test_the_rows_own_revision_holds_until_the_flag_says_another(online):
    own = online.data("rte", {"revision": "v1"})
    assert own["origin"] == "hub:nyu-mll/glue/rte@v1"
    assert sizes(own) == (10, 3, 3)
    flag = online.data("rte", {"revision": "v1"}, data_revision="main")
    assert flag["origin"] == "hub:nyu-mll/glue/rte@main"
    assert flag["fingerprint"] == online.data("rte")["fingerprint"]


def test_an_unknown_revision_is_one_line_and_exit_code_2(hub, home):
    words = ["--task", "rte", "--data_revision", "v9"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words], env=environment(home, hub.endpoint), cwd=home,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: data of task 'rte' not found")
    assert "'nyu-mll/glue' (rte, revision v9)" in line


# The cache ------------------------------------------------------------------------------------------------------------


def test_a_second_load_needs_no_hub(online, offline):
    cached = offline.data("newsqa")
    assert cached["requests"] == []
    assert (cached["fingerprint"], cached["origin"]) == (
        online.data("newsqa")["fingerprint"],
        "hub:lucadiliello/newsqa/None",
    )
    assert set(cached["files"].values()) == {"hub:lucadiliello/newsqa/None"}


def test_a_pinned_revision_is_never_served_from_another_ones_cache(online, offline):
    """Each either has its own rows or is refused: whichever was cached last does not stand in for the others."""
    own = {
        OLD: online.data("rte", data_revision="v1")["fingerprint"],
        NEW: online.data("rte")["fingerprint"],
        "v9": None,
    }
    for revision, fingerprint in own.items():
        answer = offline.data("rte", data_revision=revision)
        assert "error" in answer or answer["fingerprint"] == fingerprint


# What goes wrong ------------------------------------------------------------------------------------------------------


def one_line(text: str) -> str:
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("faulty/unknown", "doesn't exist"),
        ("faulty/asks_for_a_login", "gated"),
        ("faulty/asks_for_consent", "gated"),
        ("faulty/breaks", ""),
        ("faulty/script", "script.py"),
        ("faulty/empty", ""),
        ("faulty/no_parquet", "Parquet"),
        ("faulty/two_kinds_of_rows", ""),
        ("faulty/card", ""),
        ("faulty/hangs_up", ""),
    ],
)
def test_a_repository_that_cannot_be_read_is_told_in_one_line(name, reason, online):
    answer = online.data("rte", {"hub": [name, "rte"]})
    text = one_line(answer["error"])
    assert f"'{name}' (rte) in the hub's cache and on the hub" in text
    assert reason in text
    assert answer["waited"] <= 30


@pytest.mark.parametrize(("task", "reason"), [("qqp", "'qqp' not found"), ("cola", '"validation"')])
def test_a_missing_config_and_a_missing_split_are_named(task, reason, online):
    text = one_line(online.data(task)["error"])
    assert f"'nyu-mll/glue' ({task})" in text
    assert reason in text


def test_a_hub_that_does_not_listen_leaves_the_cache_and_one_line(online, home):
    expected = online.data("newsqa")["fingerprint"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        worker = Worker(home, f"http://127.0.0.1:{unused.getsockname()[1]}")
        cached, missing = worker.data("newsqa"), worker.data("rte", {"hub": ["faulty/unknown", "rte"]})
        worker.close()
    assert cached["fingerprint"] == expected
    text = one_line(missing["error"])
    assert "looked for 'faulty/unknown' (rte) in the hub's cache and on the hub" in text
    assert "--data_dir" in text
    assert missing["waited"] <= 30


# Models ---------------------------------------------------------------------------------------------------------------


def test_a_models_alias_and_revision_are_used(online):
    newest, pinned = (
        online.ask("model", {"task": "rte", "model": "t5-base", "model_revision": revision}) for revision in (None, OLD)
    )
    assert pinned["total"] == pytest.approx(2 * newest["total"])
    assert pinned["ids"] == newest["ids"]
    for answer, commit in ((newest, NEW), (pinned, OLD)):
        fetched = [
            request.path for request in answer["requests"] if request.method == "GET" and "/resolve/" in request.path
        ]
        assert f"/{MODEL}/resolve/{commit}/model.safetensors" in fetched
        assert [path for path in fetched if not path.startswith(f"/{MODEL}/resolve/{commit}/")] == []


def test_an_unknown_model_revision_is_told_in_one_line(online):
    text = one_line(online.ask("model", {"task": "rte", "model": "t5-base", "model_revision": "v9"})["error"])
    assert f"'{MODEL}'" in text
    assert "v9" in text
