"""python -m adept methods: every method with its parameter count and options."""

import json

import pytest

from adept.commands.main import main
from adept.commands.methods import describe
from adept.methods import METHODS


def described(capsys, *words: str) -> dict[str, dict]:
    """{method: what the command says of it in JSON}."""
    assert main(["methods", "--json", *words]) == 0
    return {row["method"]: row for row in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize(
    ("model", "counts"),
    [
        (
            "t5-base",
            {
                "zero_shot": 0, "full": 222_903_552, "lora": 1_769_472, "pt": 76_800, "dept": 76_800, "adept": 76_051,
                "pt_table": 24_751_104, "dept_relu": 61_440, "adapter": 1_855_104, "adapterdrop": 1_101_984,
                "bitfit": 280_960, "dora": 1_824_768, "vera": 76_752, "ia3": 129_024, "ln_tuning": 47_616,
                "prefix": 552_960, "lst": 3_878_706, "diff_pruning": 445_807_361,
            },
        ),
        ("t5-3b", {"pt": 102_400, "adept": 101_395}),
        (
            "llama3-8b",
            {"lora": 9_437_184, "bitfit": 1_376_256, "ia3": 524_288, "ln_tuning": 266_240, "prefix": 655_360,
             "lst": None},
        ),
        ("codegen-350m", {"prefix": None}),
    ],
)  # fmt: skip
def test_parameters_are_counted_on_the_models_true_shape(capsys, model, counts):
    rows = described(capsys, "--model", model)
    assert {method: rows[method]["trainable_params"] for method in counts} == counts


def test_json_lists_every_method_with_its_options(capsys):
    rows = described(capsys)
    assert list(rows) == list(METHODS)
    assert all(row.keys() >= {"method", "trainable_params", "options"} for row in rows.values())
    assert {name: set(row["options"]) for name, row in rows.items()} == {
        name: set(method.own_options()) for name, method in METHODS.items()
    }
    assert rows["adept"]["options"]["bottleneck"] == 19
    assert rows["dept"]["options"]["offset_len"] == 256


def test_a_local_model_is_counted_too(capsys, model_folders):
    rows = described(capsys, "--model", model_folders["t5"])
    assert rows["pt"]["trainable_params"] == 100 * 32


def test_markdown_has_a_line_for_each_method_and_each_option(capsys):
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    assert "| adept | Section 3.2, Eq. 3-4 | 76,051 |" in out
    assert "--bottleneck 19: r of ADePT's network, d -> r -> d (Eq. 3)" in out


def test_a_model_that_is_nowhere_is_one_line(capsys, world):
    assert main(["methods", "--model", "no-such/model"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and "no-such/model" in err


def test_a_method_that_cannot_be_applied_to_the_model_has_no_count(capsys, model_folders):
    """AdapterDrop leaves the five lowest blocks out, and this model has two."""
    assert main(["methods", "--model", model_folders["llama"]]) == 0
    assert "| adapterdrop | Rueckle et al. 2021; Table 3 | – |" in capsys.readouterr().out
    assert describe(METHODS["adapterdrop"], model_folders["llama"])["trainable_params"] is None
