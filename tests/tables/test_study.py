"""The study's grid and its ablations: equal searches, one budget, three seeds, a task after the other."""

from collections import Counter

import pytest
from conftest import ROOT
from made_up_tables import make_table, write_made_up_record

from adept.base.errors import UserError
from adept.tables.sweep import all_runs
from adept.tables.table_file import load_table

TASKS = ["movie_reviews", "sst2", "cola"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_table(ROOT / "configs" / "study.yaml", {"results_dir": str(tmp_path_factory.mktemp("none"))})


def test_every_method_that_trains_is_searched_alike_and_repeated_with_three_seeds(study):
    trained = [run for run in study.runs() if run.config.steps]
    cells = {(run.config.method, run.config.task) for run in trained}
    searched = Counter((run.config.method, run.config.task) for run in trained if run.config.seed == 42)
    repeated = Counter((run.config.method, run.config.task) for run in trained if run.config.seed != 42)
    assert searched == dict.fromkeys(cells, 3) and repeated == dict.fromkeys(cells, 2)
    assert {(run.config.steps, run.config.batch_size, run.config.precision) for run in trained} == {(300, 16, "tf32")}
    assert {run.config.method for run in study.runs() if not run.config.steps} == {"zero_shot"}


def test_prompts_and_offsets_have_the_budget_of_24_prompt_tokens(study):
    """PT l d, DePT m d + r (s + d), ADePT m d + r (2 d + 1) + d with d = 576."""
    counts = {
        "pt": lambda c: c.prompt_len * 576,
        "dept": lambda c: c.prompt_len * 576 + c.rank * (c.offset_len + 576),
        "adept": lambda c: c.prompt_len * 576 + c.bottleneck * (2 * 576 + 1) + 576,
    }
    found = {m: {counts[m](r.config) for r in study.runs() if r.config.method == m} for m in counts}
    assert found == {"pt": {13_824}, "dept": {13_632}, "adept": {13_832}}


def test_the_study_is_carried_out_task_by_task(study):
    tasks = [run.config.task for run in all_runs([study])]
    assert tasks == sorted(tasks, key=TASKS.index) and list(dict.fromkeys(tasks)) == TASKS
    assert tasks != [run.config.task for run in study.runs()]  # the layout stays that of the grid


def test_a_tasks_other_seeds_come_before_the_next_task(tmp_path):
    table = make_table(
        tmp_path,
        "fields: {task: [rte, cb], model: tiny-t5, method: pt}\nseeds: [1, 2]\norder: [task]\n"
        "grid: [{prompt_lr: [0.1, 0.2]}]\n",
    )
    for run in table.runs():
        if run.config.task == "rte" and not run.pending:
            write_made_up_record(run, 40)
    left = [run for run in all_runs([table]) if not run.done and not run.pending]
    assert [(run.config.task, run.config.seed) for run in left] == [("rte", 2), ("cb", 1), ("cb", 1)]


def test_an_order_by_what_is_no_option_is_refused(tmp_path):
    with pytest.raises(UserError, match="'tasks' is no option of runs; did you mean 'task'"):
        make_table(tmp_path, "order: tasks\ngrid: [{method: pt, task: rte}]")


@pytest.mark.parametrize("number", [1, 11, 12, 13, 14])
def test_the_studys_ablations_repeat_one_configuration_with_three_seeds(number, tmp_path):
    table = load_table(ROOT / "configs" / f"table{number}.yaml", {"results_dir": str(tmp_path)}, "study")
    runs = table.runs()
    seeds = Counter((run.config.seed, run.config.steps > 0) for run in runs)
    assert {seed for seed, _ in seeds} == {42, 43, 44} and len(set(seeds.values())) <= 2
    trained = [run.config for run in runs if run.config.steps]
    assert {(c.task, c.steps, c.batch_size, c.eval_rows) for c in trained} == {("movie_reviews", 300, 8, None)}
    assert {(run.config.prompt_lr, run.config.offset_lr) for run in runs} == {(0.01, 0.001)}
