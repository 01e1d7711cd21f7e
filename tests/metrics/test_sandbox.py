"""The sandbox: right programs pass, wrong ones fail for the right reason, systems without seccomp are refused."""

import json
import sys
from pathlib import Path

import pytest
from sandbox_programs import RIGHT, UNSOLVED, WRONG, mbxp, original

from adept.base.errors import UserError
from adept.metrics.sandbox import (
    Program,
    Verdict,
    available_layers,
    caller,
    processes,
    require_protection,
    run,
    run_all,
)

needs_seccomp = pytest.mark.skipif(
    not available_layers()["seccomp"], reason="programs are run on Linux with seccomp only"
)


# Programs that should pass --------------------------------------------------------------------------------------------


@needs_seccomp
@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_pass(name):
    code, tests = RIGHT[name]
    assert run(Program(code, tests, "f")) == Verdict(True, "passed")


@needs_seccomp
def test_functions_may_be_called_check_or_like_a_builtin():
    assert run(Program("def check(x):\n    return x + 1", mbxp("candidate(1) == 2"), "check")).passed
    assert run(Program("def check(x):\n    return x + 1", "assert check(1) == 2", "check")).passed
    assert run(Program("def sum(x):\n    return x + 1", "assert sum(1) == 2", "sum")).passed


@needs_seccomp
def test_sets_of_strings_have_the_same_order_in_every_run():
    program = Program(
        "def f(x):\n    raise ValueError(list(set(x.split())))", "f('one two three four five six seven')", "f"
    )
    assert len({run(program).reason for _ in range(3)}) == 1


@needs_seccomp
def test_run_all_keeps_the_order():
    programs = [
        Program(f"import time\ntime.sleep({i % 2} / 5)\ndef f():\n    return {i}", f"assert f() == {i % 3}", "f")
        for i in range(6)
    ]
    assert [verdict.passed for verdict in run_all(programs, workers=3)] == [True, True, True, False, False, False]
    assert run_all([]) == []


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@needs_seccomp
def test_the_974_solutions_of_mbxp_pass(shared):
    tasks = rows(shared / "data" / "mbpp" / "mbxp_mbpp_release_v1.jsonl")
    assert len(tasks) == 974
    verdicts = run_all(
        [Program(row["prompt"] + row["canonical_solution"], row["test"], row["entry_point"]) for row in tasks]
    )
    failed = {
        row["task_id"]: verdict.reason for row, verdict in zip(tasks, verdicts, strict=True) if not verdict.passed
    }
    assert failed.keys() <= UNSOLVED.keys(), failed


@needs_seccomp
@pytest.mark.slow
def test_the_974_solutions_of_the_original_mbpp_pass(shared):
    names = {
        row["task_id"]: row["entry_point"] for row in rows(shared / "data" / "mbpp" / "mbxp_mbpp_release_v1.jsonl")
    }
    tasks = rows(shared / "data" / "mbpp" / "google_mbpp.jsonl")
    assert len(tasks) == 974
    verdicts = run_all(
        [
            Program(
                f"{row['code']}\n{row['test_setup_code']}", "\n".join(row["test_list"]), names[f"MBPP/{row['task_id']}"]
            )
            for row in tasks
        ]
    )
    assert {
        row["task_id"]: verdict.reason for row, verdict in zip(tasks, verdicts, strict=True) if not verdict.passed
    } == {}


# Programs that are merely wrong ---------------------------------------------------------------------------------------


@needs_seccomp
@pytest.mark.parametrize("name", WRONG)
def test_wrong_programs_fail_and_say_why(name):
    code, reason = WRONG[name]
    expected = "f(2) == [4]" if name == "an object" else "f(2) == 4"
    assert run(Program(code, original(expected), "f")) == Verdict(False, reason)


@needs_seccomp
def test_mistakes_of_the_tests_are_named():
    assert run(Program("def f(x):\n    return x", "assert f(2) ==", "f")).reason.startswith("SyntaxError: ")
    assert (
        run(Program("def f(x):\n    return x", "f(object())", "f")).reason
        == "TypeError: a test passes a object, which is no plain data"
    )


# Systems that lack something ------------------------------------------------------------------------------------------


@needs_seccomp
def test_protection_is_named():
    there = [name for name, found in available_layers().items() if found]
    assert require_protection().startswith(f"generated programs run under {', '.join(there)}")


@needs_seccomp
def test_missing_layers_are_named(only_seccomp):
    line = require_protection()
    assert line.startswith("generated programs run under seccomp;")
    assert "no landlock" in line and "no namespaces" in line and "\n" not in line


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_refused(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(caller, "available_layers", available_layers.__wrapped__)
    assert not any(caller.available_layers().values())
    with pytest.raises(UserError, match=f"Linux only.*this is {system}") as caught:
        require_protection()
    assert "\n" not in str(caught.value)


def test_linux_without_seccomp_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(caller, "available_layers", lambda: {"namespaces": True, "landlock": True, "seccomp": False})
    monkeypatch.setattr(caller, "start_child", lambda *_, **__: pytest.fail("a program was started"))
    for refused in (require_protection, lambda: run(Program("", "", "f")), lambda: run_all([Program("", "", "f")])):
        with pytest.raises(UserError, match="seccomp"):
            refused()


@needs_seccomp
def test_a_layer_that_fails_stops_the_program(monkeypatch):
    sources = processes.child_sources()
    broken = sources["confinement"].replace('call_libc("prctl", 22, 2,', 'call_libc("prctl", 22, 99,')
    assert broken != sources["confinement"]
    script = processes.compile_script({**sources, "confinement": broken})
    monkeypatch.setattr(processes, "child_script", lambda: script)
    with pytest.raises(UserError, match="cannot be run safely here"):
        require_protection()
    assert not run(Program("def f():\n    return 1", "assert f() == 1", "f")).passed
