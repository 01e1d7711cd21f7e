"""The shape of the package: floors, no circles, sizes, and what is known where (adept/README.md)."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "adept"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 360, 60


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imported_modules(path: Path) -> set[str]:
    """Modules of adept that a file imports, inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & MODULES.keys() or {node.module}
    return found - {module_name(path)}


def test_no_circle_of_imports_anywhere():
    graph = {name: imported_modules(path) for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 300  # the graph was read
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_each_package_imports_only_those_below_it():
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


def test_every_package_says_what_it_is_for():
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_methods_and_families_are_known_in_their_packages_only(path):
    text, package = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).parts[0]
    if package != "methods":
        assert not re.search(r"\.method\s*(==|!=|in\b)", text)
    if package != "models":
        assert not re.search(r"[\"'](t5|llama|codegen|gpt)[\"']\s*(in|==)", text)
    if package != "models" and path.name != "codec.py":
        handed_on = "encoder_decoder=capabilities.encoder_decoder"  # the session to its codec
        assert "encoder_decoder" not in text.replace(handed_on, "")


def test_only_the_console_and_the_commands_print():
    for path in SOURCES:
        if path.relative_to(PACKAGE).parts[0] == "commands" or path.name == "console.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_importing_adept_imports_no_torch():
    code = "import adept, adept.config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
