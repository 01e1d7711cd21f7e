"""Tiny random models of the three families, saved as ordinary folders, and local data made from data/fixtures."""

import json
from pathlib import Path

import pytest
import torch

from adept.config import resolve
from adept.tasks import TASKS, Split

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
FAMILIES = ("t5", "llama", "codegen")

torch.set_num_threads(1)  # tiny models: a second thread costs more than it gives


def pytest_addoption(parser):
    parser.addoption("--fuzz_seconds", type=float, default=30, help="time for all readers of tests/test_fuzz.py together")
    parser.addoption("--write_golden", action="store_true", help="tests/test_golden.py writes golden.json in place of comparing with it")


def fixture_rows(task: str) -> list[dict]:
    return [json.loads(line) for line in (ROOT / "data" / "fixtures" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()]


def make_tokenizer(folder: Path, *, appends_eos: bool):
    """A byte-level BPE of 320 tokens, trained on the fixtures."""
    import tokenizers
    import transformers

    texts = [
        str(value)
        for path in sorted((ROOT / "data" / "fixtures").glob("*.jsonl"))
        for row in fixture_rows(path.stem)
        for value in row.values()
    ]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    special = ["<pad>", "</s>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    if appends_eos:
        backend.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(family: str):
    import transformers

    torch.manual_seed(0)
    match family:
        case "t5":
            return transformers.T5ForConditionalGeneration(
                transformers.T5Config(
                    vocab_size=328, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.1,
                    decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=1.0,
                )
            )  # fmt: skip
        case "llama":
            return transformers.LlamaForCausalLM(
                transformers.LlamaConfig(
                    vocab_size=328, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                    max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
                    initializer_range=0.3,
                )
            )  # fmt: skip
        case "codegen":
            return transformers.CodeGenForCausalLM(
                transformers.CodeGenConfig(
                    vocab_size=328, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=512, n_ctx=512,
                    pad_token_id=0, eos_token_id=1, bos_token_id=1, initializer_range=0.3,
                )
            )  # fmt: skip


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
    for path in sorted((ROOT / "data" / "fixtures").glob("*.jsonl")):
        rows = fixture_rows(path.stem)
        (folder / path.stem).mkdir()
        for split in TASKS[path.stem].splits:
            count = 1040 if TASKS[path.stem].split is Split.CARVE_1000 and split == "train" else 24  # 1,000 rows are set aside
            lines = [json.dumps(rows[i % len(rows)]) + "\n" for i in range(count)]
            (folder / path.stem / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return str(folder)


SIZES = {
    "adept": {"prompt_len": 5, "bottleneck": 3},
    "dept": {"prompt_len": 5, "rank": 3, "offset_len": 40},
    "pt": {"prompt_len": 9},
    "pt_table": {"prompt_len": 9},
    "dept_relu": {"prompt_len": 5, "rank": 3},
    "lora": {"rank": 2},
    "full": {},
    "zero_shot": {},
}


@pytest.fixture
def make_config(model_folders, data_dir, tmp_path):
    """make_config(family, method, **fields): a run of a few seconds on a tiny model."""

    def make(family: str = "t5", method: str = "adept", **fields):
        common = {
            "task": "rte", "method": method, "model": model_folders[family], "data_dir": data_dir, "results_dir": str(tmp_path / "results"),
            "device": "cpu", "steps": 4, "eval_every": 2, "batch_size": 4, "max_source_len": 64, "log_every": 2,
        }  # fmt: skip
        if method == "zero_shot":
            del common["steps"]  # nothing is trained
        return resolve({**common, **SIZES[method], **fields})

    return make


@pytest.fixture(scope="session")
def trained(model_folders, data_dir, tmp_path_factory) -> Path:
    """The folder of an ADePT adapter of SIZES, trained for two steps on the tiny T5."""
    from adept.loop import run

    folder = tmp_path_factory.mktemp("trained")
    config = resolve(
        {"task": "rte", "model": model_folders["t5"], "data_dir": data_dir, "results_dir": str(folder), "device": "cpu", "steps": 2,
         "batch_size": 4, "max_source_len": 64, "eval_rows": 4, **SIZES["adept"]}
    )  # fmt: skip
    run(config)
    return folder / "runs" / config.run_id


@pytest.fixture
def world(model_folders, data_dir, trained, tmp_path, monkeypatch) -> Path:
    """The current folder, with links t5, llama, codegen, data and trained to tiny models, data and an adapter; no hub answers."""
    for name, target in {**model_folders, "data": data_dir, "trained": trained}.items():
        (tmp_path / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def shared() -> Path:
    """The folder beside the checkout with complete official data; tests that need it are skipped elsewhere."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the checkout")
    return SHARED
