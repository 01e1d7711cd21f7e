"""What README promises is true, and the design's rules hold in the sources."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from adept.analysis.theory import theory_markdown
from adept.commands.bench import parse
from adept.commands.tasks import overview, protocols
from adept.config import command_line
from adept.config.layers import resolve
from adept.tables.markdown import markdown, table_csv
from adept.tables.report import View, build_view
from adept.tables.table_file import load_table

SOURCES = sorted([*(ROOT / "adept").rglob("*.py"), ROOT / "train.py"])
README = (ROOT / "README.md").read_text(encoding="utf-8")
THEORY = ROOT / "results" / "tables" / "theory.json"


def tracked() -> list[Path]:
    names = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize("table", ["quickstart", "first_results", "scoring"])
def test_readme_tables_are_made_from_the_run_records(table):
    block = re.search(rf"<!-- table: {table} -->\n(.*?)<!-- end -->", README, re.DOTALL).group(1)
    expected = markdown(committed(table))
    assert "missing" not in expected
    assert block == expected, (
        f"run: python -m adept.report configs/{table}.yaml and put results/tables/{table}.md into README.md"
    )


def committed(name: str) -> View:
    """A table as it is committed: the paper's are of the laptop profile."""
    profile = "laptop" if name.startswith("table") else None
    return build_view(load_table(ROOT / "configs" / f"{name}.yaml", {"results_dir": str(ROOT / "results")}, profile))


def test_committed_tables_are_made_from_the_run_records():
    for path in sorted({*(ROOT / "results" / "tables").glob("*.md")} - {THEORY.with_suffix(".md")}):
        view = committed(path.stem)
        assert path.read_text(encoding="utf-8") == markdown(view), (
            f"run: python -m adept.report configs/{path.stem}.yaml"
        )
        assert path.with_suffix(".csv").read_text(encoding="utf-8") == table_csv(view)
        for record in (record for cell in view.all_cells for record in cell.records):
            assert (ROOT / "results" / "runs" / record["run_id"] / "predictions.jsonl").is_file()


def test_table_of_the_theory_is_made_from_its_measures():
    made = theory_markdown(json.loads(THEORY.read_text(encoding="utf-8")))
    block = re.search(r"<!-- table: theory -->\n(.*?)<!-- end -->", README, re.DOTALL).group(1)
    assert block == made == THEORY.with_suffix(".md").read_text(encoding="utf-8"), (
        "run: python -m adept theory, and put it into README.md"
    )
    for row in json.loads(THEORY.read_text(encoding="utf-8"))["rows"]:
        assert (
            row["from"] in (None, "random")
            or (ROOT / "results" / "runs" / row["from"] / "adapter.safetensors").is_file()
        )


@pytest.mark.parametrize(
    ("file", "table", "made"),
    [("README.md", "tasks", lambda: overview(ROOT / "data" / "fixtures")), ("data/README.md", "protocols", protocols)],
)
def test_task_tables_are_made_from_the_task_rows(file, table, made):
    block = re.search(
        rf"<!-- table: {table} -->\n(.*?)<!-- end -->", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL
    ).group(1)
    assert block == made(), f"run: python -m adept.tasks and put its table of {table} into {file}"


def test_readme_tree_names_every_module_config_and_script():
    for path in [*SOURCES, *(ROOT / "configs").glob("*.yaml"), *(ROOT / "scripts").glob("*.sh")]:
        name = re.sub(r"^table\d+\.", "table15.", path.name)  # README: table1 ... table15
        assert name in README or path.name == "__init__.py", path


def test_readme_commands_resolve():
    commands = re.findall(r"train\.py (--task [^`#\n]*)", README)
    assert commands
    for command in commands:
        resolve(parse(command_line(""), shlex.split(command))[0])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_methods_and_families_are_known_in_one_file_only(path):
    text = path.read_text(encoding="utf-8")
    if path.name != "methods.py":
        assert not re.search(r"\.method\s*(==|!=|in\b)", text)
    if path.name != "models.py":
        assert not re.search(r"[\"'](t5|llama|codegen|gpt)[\"']\s*(in|==)", text)
    if path.name not in ("models.py", "data.py", "loop.py"):
        assert "encoder_decoder" not in text


def test_no_absolute_paths_of_a_machine():
    pattern = re.compile(r"(?<![\w.:/])/(home|root|work|data|mnt|Users)/\w")
    for path in tracked():
        if path.suffix in {".py", ".sh", ".yaml", ".md", ".toml", ".txt", ".json", ".jsonl", ".ini"}:
            assert not pattern.search(path.read_text(encoding="utf-8")), path
