"""What a run writes and reads, whose code it runs, and that secrets stay where they are."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SIZES

import train
from adept.base.errors import UserError
from adept.commands.main import main
from adept.models.loading import load_model
from adept.runs.adapter import read_weights

SOURCES = sorted([*(ROOT / "adept").rglob("*.py"), ROOT / "train.py"])
TINY = [
    "--model",
    "t5",
    "--data_dir",
    "data",
    "--results_dir",
    "results",
    "--device",
    "cpu",
    "--steps",
    "2",
    "--batch_size",
    "4",
    "--max_source_len",
    "64",
    "--eval_rows",
    "4",
]


# Whose code runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_or_trusts_a_hubs_code(path):
    """The sandbox runs programs by design, in a process of its own."""
    text = path.read_text(encoding="utf-8")
    refused = text.count('"trust_remote_code": False') + text.count("trust_remote_code=False")
    assert text.count("trust_remote_code") == refused
    for node in ast.walk(ast.parse(text)):
        imported = {alias.name for alias in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
        assert not imported & {"pickle", "shelve", "joblib", "dill"}
        if not isinstance(node, ast.Call):
            continue
        name, arguments = ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name == "torch.load":
            assert arguments["weights_only"] == "True"
        if name == "yaml.load":
            assert arguments["Loader"] == "StrictLoader"
        assert name not in (
            "torch.save",
            "marshal.load",
            "marshal.loads",
            "os.system",
            "yaml.unsafe_load",
            "yaml.full_load",
        )
        assert name not in ("eval", "exec") or path.parent.name == "sandbox"
        assert arguments.get("shell") != "True"


def test_a_models_own_code_is_not_even_asked_about(world, monkeypatch):
    """transformers asks on standard input unless it is told; a "y" that was meant for something else would run the
    code.
    """
    shutil.copytree("t5", "model")
    config = json.loads(Path("model/config.json").read_text())
    config |= {
        "model_type": "foreign",
        "auto_map": {"AutoConfig": "foreign.Config", "AutoModelForCausalLM": "foreign.Model"},
    }
    Path("model/config.json").write_text(json.dumps(config))
    Path("model/foreign.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UserError, match="custom code"):
        load_model("model")
    assert not Path("executed").exists()


def test_a_foreign_adapter_is_read_without_its_code(world):
    """adapter_model.bin, the form in which DePT's authors release theirs: tensors pass, anything that would run does
    not.
    """

    class Touch:
        def __reduce__(self):
            return Path.touch, (Path("executed"),)

    folder = Path("foreign")
    folder.mkdir()
    weights = {"prompt_embeddings": torch.ones(5, 32)}
    torch.save(weights, folder / "adapter_model.bin")
    assert torch.equal(read_weights(folder)["prompt_embeddings"], weights["prompt_embeddings"])
    torch.save({**weights, "extra": Touch()}, folder / "adapter_model.bin")
    with pytest.raises(UserError, match="no readable adapter"):
        read_weights(folder)
    assert not Path("executed").exists()
    torch.load(folder / "adapter_model.bin", weights_only=False)  # the trap is a trap
    assert Path("executed").exists()


def test_safetensors_go_before_a_pickle_beside_them(world):
    shutil.copytree("trained", "adapter")
    Path("adapter/adapter_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    assert read_weights(Path("adapter")).keys() == read_weights(Path("trained")).keys()


def test_a_run_writes_json_and_safetensors_only(world):
    assert train.main(["--task", "rte", *TINY, *shape()]) == 0
    written = {path.suffix for path in Path("results").rglob("*") if path.is_file()}
    assert written == {".json", ".jsonl", ".safetensors"}


def shape() -> list[str]:
    return [word for name, value in SIZES["adept"].items() for word in (f"--{name}", str(value))]


# Secrets --------------------------------------------------------------------------------------------------------------

SECRETS = {
    "WANDB_API_KEY": "5ec2e7a0c0ffee0123456789abcdef0123456789",
    "HF_TOKEN": "hf_" + "SecretSecretSecretSecretSecretSecr",
    "AWS_ACCESS_KEY_ID": "AKIASECRETSECRETSECR",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t/s3cr3t/s3cr3t/s3cr3t/s3cr3t/s3cr3",
}


@pytest.fixture
def secrets(monkeypatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def leaks(printed: str, *secrets: str) -> list[str]:
    """Where a secret stands: "printed", or a file below the current folder."""
    contents = {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()} | {
        "printed": printed.encode()
    }
    return [place for place, content in contents.items() for secret in secrets if secret.encode() in content]


def test_no_secret_of_the_environment_reaches_a_record_a_log_or_a_page(world, secrets, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    flags = [*TINY, *shape(), "--track", "wandb"]
    assert train.main(["--task", "rte", *flags]) == 0
    table = Path("table.yaml")
    table.write_text(
        f"title: T\ngrid: [{{task: rte, {', '.join(f'{name}: {value}' for name, value in SIZES['adept'].items())}}}]\n"
    )
    for command, words in (("sweep", ["--dry_run"]), ("sweep", []), ("report", [])):
        assert main([command, str(table), *words, *flags[: len(TINY)], "--seed", "42"]) == 0
    assert train.main(["--task", "mrpc", *flags, "--model", "no-such/model"]) == 2
    out, err = capfd.readouterr()
    assert "t5-rte-adept-" in out and "'no-such/model' not found" in err
    assert list(Path("results").rglob("*.wandb")) and list(Path("results/tables").glob("table*.md"))
    assert leaks(out + err, *SECRETS.values()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--task", "rte", "--data_dir", "https://me:hunter2hunter2@host/data"],
        ["--task", "rte", "--model", "https://host/model?access_token=hunter2hunter2"],
        ["--task", "rte", "--wandb_project", "https://host/p?a=1&api_key=hunter2hunter2&b=2"],
        ["--task", "rte", "--init_from", "s3://bucket/x?X-Amz-Signature=hunter2hunter2"],
        ["--task", "rte", "--model", "hf_hunter2hunter2hunter2hunter2hunter2"],
        ["--task", "https://me:hunter2hunter2@host"],
        ["--task", "rte", "--results_dir=https://:hunter2hunter2@host"],
        ["--task", "rte", "--modle=https://me:hunter2hunter2@host"],
        ["--task", "rte", "https://me:hunter2hunter2@host"],
        ["--task", "rte", "--steps", "https://me:hunter2hunter2@host"],
        ["--task", "rte", "--config", "https://me:hunter2hunter2@host/mine.yaml"],
        ["--task", "rte", "--config", "mine.yaml"],
        ["--task_file", "task.yaml"],
    ],
    ids=lambda words: " ".join(words),
)
def test_a_password_in_an_argument_is_refused_and_never_repeated(words, world, capfd):
    Path("mine.yaml").write_text("wandb_group: https://me:${PASSWORD}@host\n".replace("${PASSWORD}", "hunter2hunter2"))
    Path("task.yaml").write_text("name: x\nhub: {id: 'https://me:hunter2hunter2@host'}\ntext: [a]\nlabels: [a, b]\n")
    given = {path: path.read_bytes() for path in map(Path, ("mine.yaml", "task.yaml"))}
    assert train.main([*(TINY if words[0] == "--task" else TINY[4:]), *words]) == 2
    out, err = capfd.readouterr()
    for path in given:
        path.unlink()
    assert err.startswith("error: ") and err.count("\n") == 1
    assert leaks(out + err, "hunter2") == []
