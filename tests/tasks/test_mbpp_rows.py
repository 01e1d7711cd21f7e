"""MBPP's two forms as rows: texts, tests and the function under test."""

import ast
import contextlib
import json
from typing import Any

import pytest
from rendering import config_of, rendered

from adept.base.errors import UserError
from adept.config.run import task_of
from adept.data.dataset import load_data
from adept.data.sources import load_rows
from adept.metrics.completions import clean_completion, indentation
from adept.models.tiny import fixture_rows
from adept.tasks import TASKS, mbpp


def test_the_fixtures_programs_pass_their_own_tests():
    for row in fixture_rows("mbpp"):
        for code, fails in (
            (row["canonical_solution"], None),
            (indentation(row["canonical_solution"]) + "pass", AssertionError),
        ):
            scope: dict[str, Any] = {}
            exec(row["prompt"] + code + row["test"], scope)
            with pytest.raises(fails) if fails else contextlib.nullcontext():
                scope["check"](scope[row["entry_point"]])


MBPP_ORIGINAL = [  # the released MBPP's columns
    {
        "task_id": 1,
        "text": "Write a function to add up the squares of a list.",
        "code": "def square(x):\r\n  return x * x\r\ndef squares(values):\r\n  return sum(map(square, values))",
        "test_list": ["assert squares([1, 2]) == 5", "assert squares([]) == 0"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
    {
        "task_id": 2,
        "text": "Write a function to count the leaves of a tree.",
        "code": "class Node:\r\n  def __init__(self, *children):\r\n    self.children = children\r\n"
        "def leaves(node):\r\n  return sum(map(leaves, node.children)) or 1\r\ndef unused():\r\n  return 0",
        "test_list": ["assert leaves(root) == 2"],
        "test_setup_code": "root = Node(Node(),\r\n  Node())",
        "challenge_test_list": [],
    },
]


def test_mbpps_original_form_describes_the_task_and_shows_its_tests(tmp_path):
    squares, leaves = rendered("mbpp", MBPP_ORIGINAL, mbpp_prompt="original")
    assert squares.source == (
        "You are an expert Python programmer, and here is your task: Write a function to add up the squares of a list. "
        "Your code should pass these tests:\n\nassert squares([1, 2]) == 5\nassert squares([]) == 0\n[BEGIN]\n"
    )
    assert (
        squares.target
        == "def square(x):\n  return x * x\ndef squares(values):\n  return sum(map(square, values))\n[DONE]"
    )
    assert squares.references == ("", "assert squares([1, 2]) == 5\nassert squares([]) == 0", "squares")
    assert leaves.source.endswith("Your code should pass these tests:\n\nassert leaves(root) == 2\n[BEGIN]\n")
    assert leaves.references == ("", "root = Node(Node(),\n  Node())\nassert leaves(root) == 2", "leaves")

    (tmp_path / "mbpp").mkdir()
    (tmp_path / "mbpp" / "google_mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MBPP_ORIGINAL))
    config = config_of("mbpp", mbpp_prompt="original", data_dir=str(tmp_path))
    data = load_data(task_of(config), config)
    assert [[e.source for e in part] for part in (data.train, data.validation, data.test)] == [
        [squares.source],
        [],
        [leaves.source],
    ]


def test_llama3s_samples_are_freed_of_lines_and_the_others_end_at_return():
    sample = "  // adds one\n  x += 1\n  return x\n  x = 0"
    assert clean_completion(sample, "def f(x):\n    '''Adds.'''\n", config_of("mbpp").mbpp_cleanup) == (
        "  // adds one\n  x += 1\n  return x"
    )
    llama = config_of("mbpp", model="llama3-8b")
    assert (
        clean_completion(sample, "def f(x):\n    '''Adds.'''\n", llama.mbpp_cleanup)
        == "    x += 1\n    return x\n    x = 0"
    )
    assert config_of("mbpp", model="llama3-8b", mbpp_cleanup="return").mbpp_cleanup == "return"


def test_the_original_programs_are_called_as_the_other_form_calls_them(shared):
    config = config_of("mbpp", mbpp_prompt="original", data_dir=str(shared / "data"))
    originals, _, _ = load_rows(task_of(config), "google_mbpp", config)
    others, _, _ = load_rows(TASKS["mbpp"], "mbxp_mbpp_release_v1", config)
    examples = rendered("mbpp", originals, mbpp_prompt="original")
    assert [e.references[2] for e in examples] == [row["entry_point"] for row in others]
    assert all(ast.parse(e.target.removesuffix("[DONE]")) and ast.parse(e.references[1]) for e in examples)


def test_the_function_under_test_is_the_last_one_that_the_tests_call():
    program = "def a():\n  pass\ndef b():\n  pass\ndef c():\n  pass\nx = 1"
    assert mbpp.tested_function(program, "assert b() == 1\nassert set(a()) == {1}") == "b"
    assert mbpp.tested_function(program, "assert not a()") == "a"
    for tests in ("assert d() == 1", "assert a == 1", "", "assert x.c()"):
        with pytest.raises(ValueError, match="the tests call no function of the program"):
            mbpp.tested_function(program, tests)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": "def f(:"}, r".*invalid syntax"),
        ({"test_list": ["assert other() == 1"]}, r"the tests call no function of the program"),
        ({"test_list": []}, r"column 'test_list' holds \[\]"),
    ],
)
def test_an_original_program_that_cannot_be_tested_is_told(changes, message):
    with pytest.raises(UserError, match=rf"fixture, row 1: {message}"):
        rendered("mbpp", [MBPP_ORIGINAL[0], {**MBPP_ORIGINAL[1], **changes}], mbpp_prompt="original")
