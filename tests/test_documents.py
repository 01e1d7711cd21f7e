"""What the documents promise is true: their tables are made from records, their commands and snippets work."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from adept.analysis import theory_markdown
from adept.commands.bench import parse as parse_bench
from adept.commands.main import COMMANDS, main
from adept.commands.report import report_parser
from adept.commands.sweep import check_launch, sweep_parser
from adept.commands.table_arguments import named_tables
from adept.commands.tasks import overview, protocols
from adept.config.command_line import command_line, parse
from adept.config.layers import resolve
from adept.tables.estimate import estimate, hours_of
from adept.tables.markdown import markdown, table_csv
from adept.tables.publish import publish_all
from adept.tables.published import published
from adept.tables.report import View, build_view
from adept.tables.table_file import load_table
from adept.tasks import task_names

DOCUMENTS = [
    ROOT / name for name in ("README.md", *(f"{d}/README.md" for d in ("adept", "configs", "data", "results")))
]
THEORY = ROOT / "results" / "tables" / "theory.json"


def block(document: str, name: str) -> str:
    """What stands between the marks of a generated table."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", text, re.DOTALL).group(1)


@pytest.fixture(scope="module")
def committed_results(tmp_path_factory) -> Path:
    """A results folder with links to the committed records alone: what a user swept here since is not in it."""
    folder = tmp_path_factory.mktemp("committed")
    (folder / "runs").mkdir()
    entries = {
        path.relative_to(ROOT / "results" / "runs").parts[0]
        for path in tracked()
        if path.is_relative_to(ROOT / "results" / "runs")
    }
    for name in entries:
        (folder / "runs" / name).symlink_to(ROOT / "results" / "runs" / name)
    return folder


def committed(file_name: str, results: Path) -> View:
    """The committed table of this file name, which ends with the name of its profile."""
    name, _, profile = file_name.partition("-")
    path = ROOT / "configs" / f"{name}.yaml"
    return build_view(load_table(path, {"results_dir": str(results)}, profile or None))


# Generated tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "table"),
    [
        ("results/README.md", "first_results"),
        ("results/README.md", "scoring"),
    ],
)
def test_tables_of_documents_are_made_from_the_run_records(document, table, committed_results):
    expected = markdown(committed(table, committed_results))
    assert "missing" not in expected
    assert block(document, table) == expected, (
        f"python -m adept report configs/{table}.yaml, and put it into {document}"
    )


def test_the_readme_counts_the_verdicts():
    counts, _ = block("results/README.md", "claims").split(".", 1)
    assert counts in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", ["study", "quickstart"])
def test_the_readme_shows_tables_down_to_their_tests(name):
    table, below = (ROOT / "results" / "tables" / f"{name}.md").read_text(encoding="utf-8").split("\nAgainst adept")
    assert "missing" not in below
    assert block("README.md", name).rstrip() == table.rstrip(), f"put results/tables/{name}.md into README.md, to there"


def test_the_readmes_minutes_of_the_quickstart_are_those_of_its_records(committed_results):
    runs = load_table(ROOT / "configs" / "quickstart.yaml", {"results_dir": str(committed_results)}).runs()
    minutes = 60 * sum(hours_of(run.record) for run in runs)
    assert f"the four runs of the quickstart below took {minutes:.1f} minutes" in " ".join(
        (ROOT / "README.md").read_text(encoding="utf-8").split()
    )


def test_committed_tables_are_made_from_the_run_records(committed_results):
    tables = {path for path in tracked() if path.parent == THEORY.parent and path.suffix == ".md"}
    assert len(tables) > 10
    for path in sorted(tables - {THEORY.with_suffix(".md")}):
        view = committed(path.stem, committed_results)
        assert path.read_text(encoding="utf-8") == markdown(view), f"python -m adept report configs/{path.stem}.yaml"
        assert path.with_suffix(".csv").read_text(encoding="utf-8") == table_csv(view)
        for record in (record for cell in view.all_cells for record in cell.records):
            assert (ROOT / "results" / "runs" / record["run_id"] / "predictions.jsonl").is_file()


@pytest.mark.slow
def test_all_tables_their_status_and_the_claims_are_made_from_the_run_records(committed_results, tmp_path):
    profiles = ("study", "laptop")
    tables = [load_table(ROOT / "configs" / f"table{n}.yaml", {}, name) for n in range(1, 16) for name in profiles]
    results = {"results_dir": str(committed_results)}
    publish_all([dataclasses.replace(table, overrides=results) for table in tables])
    made = (committed_results / "README.md").read_text(encoding="utf-8")
    remedy = "python -m adept report --all --profile study,laptop"
    for name in ("claims", "all", "status"):
        expected = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", made, re.DOTALL).group(1)
        assert block("results/README.md", name) == expected, remedy


def test_the_row_of_the_readme_is_what_its_commands_do(committed_results):
    """The runs, hours, score and memory of the paper's RTE row."""
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    only, results = ["task=rte", "method=adept"], {"results_dir": str(committed_results)}
    runs = load_table(ROOT / "configs" / "table3.yaml", results, None, only).runs()
    count, hours = re.match(r"(\d+) runs, ([\d.]+) hours", estimate(runs, "cpu")).groups()
    assert f"The row takes {count} runs" in text and f"{hours} GPU hours at the speed of DePT's" in text
    (score,) = {entry.value for entry in published("table3") if (entry.row, entry.column) == ("adept", "rte")}
    assert f"The paper's score is {score}." in text
    counted = json.loads((ROOT / "results" / "performance.json").read_text(encoding="utf-8"))["cpu"]["memory"]
    keys = ("model", "task", "precision", "checkpointed")
    (row,) = [row for row in counted if [row[key] for key in keys] == ["t5-base", "rte", "fp32", False]]
    assert f"needs {row['total_bytes'] / 1e9:.1f} GB in fp32" in text
    runs = load_table(ROOT / "configs" / "table12.yaml", results).runs()
    assert re.match(r"\d+ runs, [\d.]+ hours", estimate(runs, "cpu")).group() in text


def test_the_table_of_the_theory_is_made_from_its_measures():
    theory = json.loads(THEORY.read_text(encoding="utf-8"))
    made = theory_markdown(theory)
    assert block("results/README.md", "theory") == made == THEORY.with_suffix(".md").read_text(encoding="utf-8")
    for row in theory["rows"]:
        adapter = ROOT / "results" / "runs" / str(row["from"]) / "adapter.safetensors"
        assert row["from"] in (None, "random") or adapter.is_file()


def test_the_tables_of_tasks_are_made_from_the_task_rows():
    assert block("data/README.md", "tasks") == overview(ROOT / "data" / "fixtures"), "python -m adept tasks"
    assert block("data/README.md", "protocols") == protocols(), "python -m adept tasks"


# Commands -------------------------------------------------------------------------------------------------------------

UNCHECKED = {
    "source": "the shell's own",
    "pip": "installs",
    "wandb": "needs an account",
    "lm_eval": "of lm-evaluation-harness, which is not installed",
    "ruff": "run by scripts/test.sh",
    "lint-imports": "tests/test_house.py",
}
SCRIPTS_WITHOUT_TABLE = {"quickstart.sh", "test.sh"}
"""Run as a whole from a fresh clone; their flags are those of sweep and of pytest."""


def commands() -> Iterator[tuple[str, str]]:
    """(document, command) of every line in a bash block. A backslash joins lines, a comment ends one."""
    for document in DOCUMENTS:
        for code in re.findall(r"```bash\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
            for line in code.replace("\\\n", " ").splitlines():
                if line.strip():
                    yield str(document.relative_to(ROOT)), line


def check_train(words: list[str]) -> None:
    flags, rest = parse(command_line("", arguments=words), words)
    if "task" in flags or "task_file" in flags:
        flags.pop("task_file", None)
        for name in task_names(flags.get("task", "movie_reviews")):
            resolve({**flags, "task": name}, getattr(rest, "config", None))


def check_sweep(words: list[str]) -> None:
    overrides, rest = parse(sweep_parser(words), words)
    check_launch(rest)
    named_tables(rest, {name: value for name, value in overrides.items() if value != "DIR"})


def check_report(words: list[str]) -> None:
    overrides, rest = parse(report_parser(words), words)
    named_tables(rest, overrides)


@pytest.mark.parametrize(("document", "line"), sorted(set(commands())))
def test_every_command_of_the_documents_is_understood(document, line, monkeypatch):
    monkeypatch.chdir(ROOT)
    match shlex.split(line, comments=True):
        case [program, *_] if program in UNCHECKED:
            pass
        case ["python", "train.py", "--help"] | ["python", "tests/chaos.py" | "tests/reliability.py", *_]:
            pass
        case ["python", "train.py", *words] | ["torchrun", "--nproc_per_node", "4", "train.py", *words]:
            check_train(words)
        case ["python", "-m", "adept", "sweep", *words]:
            check_sweep(words)
        case ["python", "-m", "adept", "report", *words]:
            check_report(words)
        case ["python", "-m", "adept", "bench", *words]:
            parse_bench(words)
        case ["python", "-m", "adept", "predict" | "push" as name, *words]:
            importlib.import_module(f"adept.commands.{name}").make_parser().parse_args(words)
        case ["python", "-m", "adept", name, *_]:
            assert name in COMMANDS
        case ["bash", script, *words]:
            text = (ROOT / script).read_text(encoding="utf-8")
            if Path(script).name not in SCRIPTS_WITHOUT_TABLE:
                (table,) = re.findall(r"python -m adept sweep (\S+) ", text)
                check_sweep([table, *words])
        case _:
            pytest.fail(f"{document}: no test knows the command {line!r}")


def test_links_between_documents_lead_somewhere():
    for document in [*DOCUMENTS, ROOT / "results" / "performance.md", ROOT / "results" / "reliability.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target.replace("\\", "")).exists(), (document, target)


def test_every_package_config_and_script_is_in_a_document():
    house = (ROOT / "adept" / "README.md").read_text(encoding="utf-8")
    for folder in (path.parent for path in (ROOT / "adept").glob("*/__init__.py")):
        assert f"`{folder.name}/`" in house
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    for path in [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "scripts").glob("*.sh")]:
        name = re.sub(r"^table\d+\.", "table15.", path.name)  # table1 ... table15
        assert name in text or f"`{path.stem}`" in text, path


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


# Snippets -------------------------------------------------------------------------------------------------------------


def snippet(document: str, beginning: str) -> str:
    """The Python block of a document that begins so."""
    text = (ROOT / document).read_text(encoding="utf-8")
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if code.startswith(beginning)]
    return found


@pytest.mark.slow
def test_the_snippet_of_use_answers(monkeypatch):
    monkeypatch.chdir(ROOT)
    record = next((ROOT / "results" / "runs").glob("smollm2-135m-movie_reviews-adept-8ec25c7c.json"))
    loading, answering = snippet("README.md", "import adept").replace("<run_id>", record.stem).rstrip().rsplit("\n", 1)
    names: dict = {}
    exec(loading, names)  # a document of this project
    call, expected = answering.split("  # ")
    assert str(eval(call, names)) == expected


METHOD_IN_A_FILE = """
import sys
from typing import ClassVar
import torch
from torch import nn
import adept.methods
from adept.base.options import option
from adept.methods.prompts import OffsetMethod

class SharedVector(nn.Module):
    def __init__(self, width, scale):
        super().__init__()
        self.vector, self.scale = nn.Parameter(torch.zeros(width)), scale

    def forward(self, embeds, is_prompt):
        return (self.scale * self.vector).expand_as(embeds)

{snippet}
adept.methods.METHODS["shift"] = Shift
import adept
config = adept.resolve(dict(
    task="rte", model="tiny-t5", data_dir="fixtures", results_dir=sys.argv[1], device="cpu",
    method="shift", shift_scale=0.5, prompt_len=4, steps=2, batch_size=2, eval_rows=2, max_source_len=32,
))
record = adept.run(config)
assert record["config"]["shift_scale"] == 0.5 and record["trainable_params"] == 5 * 32, record
assert adept.load(record["run_id"], results_dir=sys.argv[1]).answer(["sentence1: a sentence2: b"])
"""


def test_the_example_of_an_own_comparison_runs_as_its_document_says(tmp_path, capsys):
    """Its commands, on a tiny model and fewer steps, from the CSV files to the page."""
    file, words = ROOT / "configs" / "examples" / "own_comparison.yaml", ["--results_dir", str(tmp_path)]
    smaller = ["--model", "tiny-t5", "--steps", "2", "--eval_every", "1", "--eval_rows", "21", "--device", "cpu"]
    assert main(["sweep", str(file), *words, *smaller, "--launch", "here"]) == 0
    capsys.readouterr()
    assert main(["report", str(file), *words, "--page"]) == 0
    shown = capsys.readouterr()
    assert "as it was swept: " in shown.err and "--model tiny-t5" in shown.err
    document = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    printed_there = document.split("it prints:")[1].split("The flags of a sweep")[0].splitlines()
    for method, parameters in (("pt", "768"), ("dept", "1,664"), ("adept", "776"), ("lora", "768")):
        assert any(line.startswith(f"| {method} | {parameters} | ") for line in printed_there)
        assert f"| {method} | {parameters} | " in shown.out
    assert shown.out.count("chosen |") == 4 and "(3)†" in shown.out
    assert "Against adept on the same test rows, by paired bootstrap over rows and seeds" in shown.out
    files = {path.suffix for path in (tmp_path / "tables").iterdir()}
    assert files == {".md", ".csv", ".png", ".html", ".json"}


def test_the_snippet_that_adds_a_method_trains(tmp_path):
    code = METHOD_IN_A_FILE.format(snippet=snippet("adept/README.md", "# adept/methods"))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_snippet_that_adds_a_task_is_a_task():
    from adept.tasks import Split, Task

    task = eval(snippet("adept/README.md", "# in ROWS"), {"Task": Task, "Split": Split})  # a document of this project
    row = {"joke": "Knock, knock.", "label": 1}
    assert (task.source(row), task.answer(row)) == ("joke: Knock, knock.", ("1", ("1",)))


# The whole tree -------------------------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_no_absolute_paths_of_a_machine():
    pattern = re.compile(r"(?<![\w.:/])/(home|root|work|data|mnt|Users)/\w")
    for path in tracked():
        if path.suffix in {".py", ".sh", ".yaml", ".md", ".toml", ".txt", ".json", ".jsonl", ".html"}:
            assert not pattern.search(path.read_text(encoding="utf-8")), path
