"""Both stages of the post-processing of MBPP completions."""

import ast
import json

import pytest

from adept.metrics.completions import clean_completion, cut_completion, drop_stray_lines, end_at_return

BODY_STOPS = [
    "\ndef",
    "\nclass",
    "\nassert",
    '\n"""',
    "\nprint",
    "\nif",
    "\n<|/",
    "\n```",
    "<｜end▁of▁sentence｜>",
]  # LoPA's
PROGRAM_STOPS = ["[DONE]", "\nassert", "\nprint", "\n```", "\n<|/"]


@pytest.mark.parametrize(
    ("stop", "body"), [*((stop, True) for stop in BODY_STOPS), *((stop, False) for stop in PROGRAM_STOPS)]
)
def test_a_completion_ends_at_a_stop_word(stop, body):
    kept = "    if x:\n        print(x)\n    return 'def class assert'"
    for junk in (stop, f"{stop} more\n{stop}", f"{stop} a" + "".join(BODY_STOPS + PROGRAM_STOPS)):
        assert cut_completion(kept + junk, body=body) == kept
    assert cut_completion(kept, body=body) == kept
    assert cut_completion(stop, body=body) == ""


def test_a_whole_program_may_hold_functions_classes_and_conditions():
    program = "import re\nclass A:\n  pass\ndef f():\n  return 1\nif True:\n  x = f()\n"
    assert cut_completion(f"{program}[DONE]\n", body=False) == program
    assert cut_completion(program, body=True) == "import re"


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        ("    return x", "    return x"),
        ("    return x\n\nThis function\n    is good", "    return x"),
        ("\treturn x\n\ty = 1", "\treturn x"),
        ("    y = 1\n    return y\n    return 2", "    y = 1\n    return y"),
        ("\n    return x\n    y", "\n    return x"),
        # nested: the last return at the body's depth or below it ends the body
        ("    if x:\n        return 1\n    return 2\n    junk", "    if x:\n        return 1\n    return 2"),
        (
            "    if x:\n        return 1\n    else:\n        return 2\n    junk",
            "    if x:\n        return 1\n    else:\n        return 2",
        ),
        ("    def g(y):\n        return y\n    return g(x)\njunk", "    def g(y):\n        return y\n    return g(x)"),
        (
            "    if x:\n        return 1\nreturn 2",
            "    if x:\n        return 1",
        ),  # the second stands outside of the function
        # over several lines
        ("    return [\n        1,\n\n        2,\n    ]\njunk", "    return [\n        1,\n\n        2,\n    ]"),
        ('    return """a\nb"""\njunk', '    return """a\nb"""'),
        ("    return x + \\\n        y\njunk", "    return x + \\\n        y"),
        # junk on the line itself
        ("    return x }} and so on", "    return x"),
        ("    return x  # why not", "    return x  # why not"),
        ("    return (x", "    return"),
        ("    return", "    return"),
        # no return
        ("    print(x)\n    x.sort()", "    print(x)\n    x.sort()"),
        ("    returned = 1\n    x", "    returned = 1\n    x"),
        ("", ""),
        ("\n \n", "\n \n"),
    ],
)
def test_nothing_follows_the_return_that_ends_the_body(completion, kept):
    assert end_at_return(completion) == kept


TABS, BLANKS = 'def f(x):\n\t"""\n\tAdds one.\n\t"""\n', 'def f(x):\n    """\n    Adds one.\n    """\n\n'


@pytest.mark.parametrize(
    ("completion", "before", "kept"),
    [
        ("    x += 1\n    return x", BLANKS, "    x += 1\n    return x"),
        (
            ": int\n// adds\n.x\n    # adds\n    return x  // 2\n    .5\n   :param",
            BLANKS,
            "    # adds\n    return x  // 2",
        ),
        ("x += 1\nreturn x", BLANKS, "    x += 1\n    return x"),
        ("  if x:\n    return 1\n\n  return x", BLANKS, "    if x:\n      return 1\n\n    return x"),
        ("        return x", BLANKS, "    return x"),
        ("    if x:\n        return 1\n    return x", TABS, "\tif x:\n\t    return 1\n\treturn x"),
        ("\n  \n  return x", TABS, "\n  \n\treturn x"),
        ("\tif x:\n\t\treturn 1", BLANKS, "    if x:\n    \treturn 1"),
        ("", BLANKS, ""),
        (":\n//\n.", BLANKS, ""),
    ],
)
def test_stray_lines_go_and_the_body_stands_as_deep_as_the_docstring(completion, before, kept):
    assert drop_stray_lines(completion, before) == kept


def test_clean_up_keeps_every_correct_program_a_program(shared):
    path = shared / "data" / "mbpp" / "mbxp_mbpp_release_v1.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cut, broken = set(), set()
    for row in rows:
        first = cut_completion(row["canonical_solution"], body=True)
        cut |= {row["task_id"]} if first != row["canonical_solution"] else set()
        for code in (first, *(clean_completion(first, row["prompt"], cleanup) for cleanup in ("return", "lines"))):
            try:
                ast.parse(row["prompt"] + code)
            except SyntaxError:
                broken.add(row["task_id"])
    assert cut == {"MBPP/223", "MBPP/717", "MBPP/940"}  # which hold a second function
    assert broken == {"MBPP/64", "MBPP/966"}  # whose docstrings are not indented, so that no completion is right
