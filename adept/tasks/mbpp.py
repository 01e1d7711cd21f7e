"""MBPP, code generation for decoder-only models (Section 4.3; where the paper is silent, LoPA's protocol).

References of a program are (code that stands before the completion, tests, name of the function under test).
"""

from __future__ import annotations

import ast
from typing import Any, Literal

from adept.base.options import option
from adept.tasks.rows import Answer, Row, list_value, text_value
from adept.tasks.task import Sampling, Split, Task, TaskOptions

MBXP = "https://raw.githubusercontent.com/amazon-science/mxeval/main/data/mbxp/mbpp_release_v1.jsonl"


class MbppOptions(TaskOptions):
    """Options of MBPP."""

    mbpp_prompt: Literal["docstring", "original"] = option(
        "docstring", "MBPP: signature and 'docstring' (MBXP; Appendix C) or the 'original' description with tests"
    )
    mbpp_cleanup: Literal["return", "lines"] = option(
        "return", "MBPP: the second version of a sample ends at its 'return', or is freed of stray 'lines' (Llama-3)"
    )
    temperature: float = option(0.6, "of sampling, 0: greedy (MBPP 0.6); samples depend on --eval_batch_size", ge=0.0)
    top_p: float = option(0.95, "nucleus of sampling (MBPP 0.95)", ge=0.01, le=1.0)
    samples: int = option(1, "programs drawn for each test row (MBPP 1; 10 or more for pass@10)", ge=1, le=10_000)

    def changes(self) -> dict[str, Any]:
        return {
            **(ORIGINAL if self.mbpp_prompt == "original" else {}),
            "completion_cleanup": self.mbpp_cleanup,
            "sampling": Sampling(self.temperature, self.top_p, self.samples),
        }


def docstring_prompt(row: Row, options: TaskOptions) -> str:
    """MBXP's form: signature and docstring with three examples."""
    return text_value(row, "prompt")


def function_body(row: Row, options: TaskOptions) -> Answer:
    """MBXP's form: the function's body, with what the tests need."""
    return text_value(row, "canonical_solution"), (
        text_value(row, "prompt"),
        text_value(row, "test"),
        text_value(row, "entry_point"),
    )


def described_prompt(row: Row, options: TaskOptions) -> str:
    """The original form (Austin et al. 2021, Section 4.1): a description, and the tests to pass."""
    tests = "\n".join(list_value(row, "test_list"))
    return (
        f"You are an expert Python programmer, and here is your task: {text_value(row, 'text')} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def whole_program(row: Row, options: TaskOptions) -> Answer:
    """The original form: the program up to [DONE], with its tests."""
    code = text_value(row, "code").replace("\r\n", "\n")
    setup = text_value(row, "test_setup_code").replace("\r\n", "\n")
    tests = "\n".join([setup, *list_value(row, "test_list")]).strip()
    return f"{code}\n[DONE]", ("", tests, tested_function(code, tests))


def tested_function(code: str, tests: str) -> str:
    """The function of `code` that `tests` calls. Raises ValueError where there is none."""
    calls = [node.func for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Call)]
    called = {function.id for function in calls if isinstance(function, ast.Name)}
    for node in reversed(ast.parse(code).body):
        if isinstance(node, ast.FunctionDef) and node.name in called:
            return node.name
    raise ValueError(f"the tests call no function of the program: {tests!r:.60}")


ORIGINAL = {
    "hub": ("google-research-datasets/mbpp", "full"),
    "splits": ("google_mbpp",),
    "on_hub": {"google_mbpp": "prompt+test+validation+train"},  # in the order of their task ids, 1 to 974
    "text": described_prompt,
    "target": whole_program,
}

ROWS = (
    Task("mbpp", ("mxeval/mbxp", "python"), docstring_prompt, target=function_body, options=MbppOptions(),
         metrics=("pass@1_two_versions", "pass@1", "pass@10"), decoder_only=True, runs_code=True, cue=None,
         split=Split.HALVE_ROWS, splits=("mbxp_mbpp_release_v1",), on_hub={"mbxp_mbpp_release_v1": MBXP},
         groups=("code",), max_source_len=325, sizes=(487, 0, 487)),
)  # fmt: skip
