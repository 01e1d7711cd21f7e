"""Tiny random models of the three families, saved as ordinary folders, and local data made from data/fixtures."""

import functools
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from adept.config.layers import resolve
from adept.data.fixtures import write_rows
from adept.methods import METHODS
from adept.models.tiny import make_model, make_tokenizer

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
FAMILIES = ("t5", "llama", "codegen")

torch.set_num_threads(1)  # tiny models gain nothing from a second one, and lose tenfold where the cores are shared


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz_seconds", type=float, default=30, help="time for all readers of tests/test_fuzz.py together"
    )
    parser.addoption(
        "--write_golden",
        action="store_true",
        help="tests/training/test_golden.py writes golden.json in place of comparing with it",
    )


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory) -> dict[str, str]:
    """{family: folder of a tiny random model with its tokenizer}."""
    folders = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp("models") / f"tiny-{family}"
        make_model(family).save_pretrained(folder)
        make_tokenizer(folder, appends_eos=family == "t5")
        folders[family] = str(folder)
    return folders


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    """Every task's fixture rows, repeated to 24 a split, as DIR/<task>/<split>.jsonl."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder, rows_a_split=24)
    return str(folder)


SIZES = {
    "adept": {"prompt_len": 5, "bottleneck": 3},
    "dept": {"prompt_len": 5, "rank": 3, "offset_len": 40},
    "pt": {"prompt_len": 9},
    "pt_table": {"prompt_len": 9},
    "dept_relu": {"prompt_len": 5, "rank": 3},
    "residual": {"prompt_len": 8, "hidden": 4},
    "dpt": {"prompt_len": 8, "rank": 3},
    "ulpt": {"prompt_len": 8, "rank": 3},
    "ptuning": {"prompt_len": 8},
    "spot": {"prompt_len": 8},
    "xprompt": {"prompt_len": 8, "pieces": 4},
    "pt_embedding": {"prompt_len": 9},
    "loraxl": {"prompt_len": 5, "bottleneck": 3},
    "loraxab": {"prompt_len": 5, "rank": 3, "bottleneck": 3, "offset_len": 40},
    "lora": {"rank": 2},
    "prefix": {"prompt_len": 3},
    "lst": {"side_factor": 4, "side_blocks": "1", "importance_rows": 4},
    "diff_pruning": {},
    "full": {},
    "zero_shot": {},
    "adapter": {"bottleneck": 3},
    "adapterdrop": {"bottleneck": 3, "adapter_blocks": "1-"},
    "bitfit": {},
    "dora": {"rank": 2},
    "vera": {"rank": 4},
    "ia3": {},
    "ln_tuning": {},
}

CANNOT_RUN = {("prefix", "codegen"), ("lst", "llama"), ("lst", "codegen")}
"""(method, family) that are refused in one line."""


def runnable(methods, families=FAMILIES) -> list[tuple[str, str]]:
    """(method, family) of those that can run."""
    return [pair for pair in itertools.product(methods, families) if pair not in CANNOT_RUN]


EVERY_FAMILY = ("zero_shot", "full", "lora", "pt", "dept", "adept", "pt_table", "dept_relu")
"""The methods whose runs are tried on every family."""


def runs_of_methods(families: Sequence[str] = FAMILIES, *, trained: bool = True) -> list[tuple[str, str]]:
    """(method, family): EVERY_FAMILY on all of the families, each other method on one of them, by its name.

    trained: without those that train nothing.
    """
    names = [name for name, method in METHODS.items() if method.rates or not trained]
    runs = []
    for name in names:
        able = [family for family in families if (name, family) not in CANNOT_RUN]
        one = able[zlib.crc32(name.encode()) % len(able)]
        runs += [(name, family) for family in able if name in EVERY_FAMILY or family == one]
    return runs


@pytest.fixture(scope="session")
def trained_prompt(model_folders, tmp_path_factory):
    """trained_prompt(family) -> the folder of an adapter of prompt tuning with 8 tokens, as a run leaves it."""
    from adept.runs.adapter import save_adapter
    from adept.training.session import open_session

    @functools.cache
    def make(family: str) -> str:
        config = resolve(
            {"task": "rte", "method": "pt", "prompt_len": 8, "model": model_folders[family], "device": "cpu"}
        )
        session, folder = open_session(config), tmp_path_factory.mktemp("trained_prompt")
        save_adapter(folder, session.trainables, config, session.base_weights)
        return str(folder)

    return make


@pytest.fixture
def make_config(model_folders, data_dir, trained_prompt, tmp_path):
    """make_config(family, method, **fields): a run of a few seconds on a tiny model."""

    def make(family: str = "t5", method: str = "adept", **fields):
        common = {
            "task": "rte", "method": method, "model": model_folders[family], "data_dir": data_dir,
            "results_dir": str(tmp_path / "results"), "device": "cpu", "steps": 4, "eval_every": 2, "batch_size": 4,
            "max_source_len": 64, "log_every": 2,
        }  # fmt: skip
        if method == "zero_shot":
            del common["steps"]  # nothing is trained
        if METHODS[method].needs_start:
            common["init_from"] = trained_prompt(family)
        return resolve({**common, **SIZES[method], **fields})

    return make


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory) -> str:
    """The folder of a tiny GPT2, whose positions are learned."""
    from tiny_families import build

    folder = tmp_path_factory.mktemp("gpt2")
    build("GPT2").save_pretrained(folder)
    make_tokenizer(folder, appends_eos=False)
    return str(folder)


@pytest.fixture
def filled(make_config, gpt2):
    """filled(family, method, **fields): a session whose trained parameters are random. family: t5, llama or gpt2."""
    from explicit_formulas import filled_session

    def make(family: str, method: str, **fields):
        model = {"model": gpt2} if family == "gpt2" else {}
        return filled_session(make_config, "llama" if family == "gpt2" else family, method, **model, **fields)

    return make


@pytest.fixture(scope="session")
def trained(model_folders, data_dir, tmp_path_factory) -> Path:
    """The folder of an ADePT adapter of SIZES, trained for two steps on the tiny T5."""
    from adept.training.loop import run

    folder = tmp_path_factory.mktemp("trained")
    config = resolve(
        {"task": "rte", "model": model_folders["t5"], "data_dir": data_dir, "results_dir": str(folder),
         "device": "cpu", "steps": 2, "batch_size": 4, "max_source_len": 64, "eval_rows": 4, **SIZES["adept"]}
    )  # fmt: skip
    run(config)
    return folder / "runs" / config.run_id


@pytest.fixture
def world(model_folders, data_dir, trained, tmp_path, monkeypatch) -> Path:
    """The current folder, with links t5, llama, codegen, data and trained to tiny models, data and an adapter; no hub
    answers.
    """
    for name, target in {**model_folders, "data": data_dir, "trained": trained}.items():
        (tmp_path / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture(scope="session")
def measure():
    """measure(name, predictions, gold, labels, groups, **fields): a metric of rows with one reference each."""
    from adept.metrics import METRICS, Answers

    def measure(name, predictions, gold, labels=("0", "1"), groups=None, **fields):
        return METRICS[name](Answers(predictions, [(g,) for g in gold], labels, groups, **fields))

    return measure


@pytest.fixture
def only_seccomp(monkeypatch):
    """The sandbox finds no layer but seccomp."""
    from adept.metrics.sandbox import caller

    monkeypatch.setattr(caller, "available_layers", lambda: {"namespaces": False, "landlock": False, "seccomp": True})


@pytest.fixture
def short_polls(monkeypatch) -> None:
    """Sweeps look often at what other sweeps are doing."""
    monkeypatch.setattr("adept.tables.sweep.POLL_SECONDS", 0.2)


@pytest.fixture
def shared() -> Path:
    """The folder beside the checkout with complete official data; tests that need it are skipped elsewhere."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the checkout")
    return SHARED


TINY_RUN = {"device": "cpu", "steps": 4, "eval_every": 2, "batch_size": 4, "max_source_len": 64, "log_every": 2}


@pytest.fixture
def write_task(tmp_path):
    """write_task(values, rows=12, **changes of BASE) -> path of a task file with its data beside it."""

    import yaml
    from task_files import BASE, GONE, joke_rows, write_rows

    def write(values=(0, 1), rows: int = 12, **changes):
        content = {key: value for key, value in {**BASE, **changes}.items() if value is not GONE}
        for name in content.get("files", {}).values():
            write_rows(tmp_path / name, joke_rows(list(values), rows))
        path = tmp_path / "task.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def train_task_file(model_folders, tmp_path, capsys):
    """train_task_file(task_file, family, **flags) -> (exit code, stdout, stderr) of train.py.

    What it writes lies in results/. A flag without a value has None.
    """

    import train

    def run(path, family: str = "t5", **flags):
        fields = {
            "task_file": path,
            "model": model_folders[family],
            "results_dir": tmp_path / "results",
            **TINY_RUN,
            **SIZES["adept"],
            **flags,
        }
        capsys.readouterr()
        words = ((f"--{name}",) if value is None else (f"--{name}", str(value)) for name, value in fields.items())
        code = train.main([*itertools.chain(*words)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def t5_tokenizer():
    """The real T5 tokenizer."""
    import transformers

    folder = SHARED / "t5-tokenizer"
    if not folder.is_dir():
        pytest.skip("no ../shared beside the checkout")
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def tiny_bench(monkeypatch) -> None:
    """The bench's models and profiles made tiny (tests/tiny_bench.py)."""
    from tiny_bench import shrink

    shrink(monkeypatch)
