"""The command `theory`: table, figure, mistakes."""

import json

import pytest

from adept.analysis.theory import theory_markdown
from adept.commands.main import main
from adept.models.families import random_t5
from adept.training.loop import run
from adept.training.session import open_session


def test_the_command_writes_table_and_figure(make_config, data_dir, tmp_path, capsys):
    runs = [run(make_config("llama", method, offset_lr=0.3)) for method in ("dept", "adept")]
    places = ["--results_dir", str(tmp_path / "results"), "--data_dir", data_dir, "--device", "cpu"]
    assert main(["theory", "--adapters", *(record["run_id"] for record in runs), "--rows", "3", *places]) == 0
    folder = tmp_path / "results" / "tables"
    found, text = json.loads((folder / "theory.json").read_text()), (folder / "theory.md").read_text(encoding="utf-8")
    assert text == theory_markdown(found) and text in capsys.readouterr().out
    methods = [row["method"] for row in found["rows"]]
    assert methods == ["frozen model", "dept", "adept", "frozen model", "pt", "dept", "adept"]
    assert found["rows"][1]["from"] == runs[0]["run_id"] and found["rows"][4]["from"] == "random"
    assert text.count("| random-t5 |") == 4
    assert (folder / "theory.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("words", "named"), [(["--rows", "0"], "--rows"), (["--adapters", "nothing"], "no adapter 'nothing'")]
)
def test_a_mistake_is_one_line(words, named, tmp_path, capsys):
    assert main(["theory", *words, "--results_dir", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and named in err and err.count("\n") == 1


def test_the_random_t5_is_the_same_every_time(make_config, tmp_path):
    tokenizer = open_session(make_config("llama", "zero_shot")).codec.tokenizer
    for name in ("one", "two"):
        random_t5(tmp_path / name, tokenizer)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
