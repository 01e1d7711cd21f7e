"""Every table's whole structure with tiny random models and hand-written rows: swept, printed, put on the page."""

import re
import subprocess

import pytest
from conftest import ROOT

from adept.commands.main import main
from adept.tables.launchers.in_process import InProcess
from adept.tables.markdown import markdown
from adept.tables.report import build_view
from adept.tables.table_file import load_table

NUMBERS = range(1, 16)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_table_has_a_script_that_sweeps_it(number):
    script = (ROOT / "scripts" / f"table{number}.sh").read_text(encoding="utf-8")
    assert script.splitlines()[-1] == f'python -m adept sweep configs/table{number}.yaml "$@"'
    assert 'source "$(dirname "$0")/setup.sh"' in script
    assert subprocess.run(["bash", "-n", str(ROOT / "scripts" / f"table{number}.sh")]).returncode == 0


def test_a_half_finished_sweep_prints_its_dashes_and_counts(tmp_path, monkeypatch, capsys):
    """The first two runs of Table 12 finish, the third cannot."""
    submitted = []

    class InterruptedAtTheThird(InProcess):
        def submit(self, stack):
            submitted.append(stack)
            if len(submitted) > 2:
                raise KeyboardInterrupt
            super().submit(stack)

    monkeypatch.setattr("adept.commands.sweep.make_launcher", lambda _: InterruptedAtTheThird())
    arguments = [str(ROOT / "configs" / "table12.yaml"), "--profile", "smoke", "--results_dir", str(tmp_path)]
    assert main(["sweep", *arguments]) == 130
    assert main(["report", *arguments]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\| adept \| [\d,/ ]+ \| 78.4 \\\| [\d.]+ \(1\)† \| 82 \\\| – \|", printed)
    assert "10 of 12 runs are missing (–), 3 of them until validation has chosen." in printed


@pytest.mark.slow
def test_all_tables_run_and_make_the_page(tmp_path, capfd):
    words = ["--all", "--profile", "smoke", "--results_dir", str(tmp_path), "--launch", "local", "--workers", "2"]
    code = main(["sweep", *words])
    shown = capfd.readouterr()
    assert code == 0, shown.err[-3000:]
    tables = [load_table(ROOT / "configs" / f"table{n}.yaml", {"results_dir": str(tmp_path)}, "smoke") for n in NUMBERS]
    views = [build_view(table) for table in tables]
    assert [view.missing for view in views] == [0] * len(views)
    for view in views:
        ours = [cell for cell in view.all_cells if cell.paper is None or cell.records or cell.metric == "mean"]
        assert ours and all(cell.values for cell in ours), view.table.name
        assert (tmp_path / "tables" / f"{view.table.file_name}.md").read_text(encoding="utf-8") == markdown(view)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert all(view.table.title in page for view in views)
    assert "missing" not in (tmp_path / "README.md").read_text(encoding="utf-8")
