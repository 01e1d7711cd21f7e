"""Early stopping: who is judged against whom, at which steps, and what a table does without the stopped runs."""

import functools
import json

import pytest
from made_up_tables import make_table, write_made_up_record

from adept.base.atomic_files import write_atomically
from adept.config.layers import resolve
from adept.runs.layout import run_folder
from adept.tables.early_stopping import EarlyStopping, is_stopped, rungs, stopped_path
from adept.tables.markdown import markdown
from adept.tables.report import build_view
from adept.tables.table import PlannedRun


@pytest.fixture
def table_of(tmp_path):
    """table_of(text, profile=None, **overrides): the table of a file with this text."""
    return functools.partial(make_table, tmp_path)


def stop_early(run: PlannedRun) -> None:
    write_atomically(stopped_path(run.config), "{}\n")


SEARCH = "seeds: [1, 2]\ngrid: [{task: [rte, cb], method: pt, prompt_lr: [0.1, 0.3, 0.5], steps: 90, eval_every: 10}]"


def test_rivals_are_what_is_searched_in_the_same_cell(table_of):
    runs = table_of(SEARCH).runs()
    first = [run for run in runs if run.config.seed == 1]
    for run in first:
        assert set(run.rivals) == {other.id for other in first if other.config.task == run.config.task} - {run.id}
    assert all(run.rivals == () for run in runs if run.config.seed == 2)


@pytest.mark.parametrize(
    "grid",
    [
        "[{task: rte, method: [pt, adept, lora]}]",  # three cells
        # seeds are not rivals, nor are configurations judged one by one
        "[{task: rte, method: pt, prompt_lr: [0.1, 0.3], seed: [1, 2]}]",
        "[{task: rte, method: pt, prompt_lr: [0.1, 0.3], steps: 0}]",
    ],
)
def test_nobody_else_has_rivals(table_of, grid):
    assert [run.rivals for run in table_of(f"grid: {grid}").runs() if run.rivals] == []


def test_validation_chooses_among_those_that_were_not_stopped(table_of):
    table = table_of(SEARCH)
    searched = [run for run in table.runs() if run.config.seed == 1 and run.config.task == "rte"]
    stop_early(searched[0])
    write_made_up_record(searched[1], 60)
    assert sum(run.pending for run in table.runs() if run.config.task == "rte") == 1
    write_made_up_record(searched[2], 70)
    (again,) = [run for run in table.runs() if run.config.seed == 2 and run.config.task == "rte"]
    assert (again.pending, again.config.prompt_lr) == (False, 0.5)


def test_the_report_counts_stopped_configurations_and_does_not_miss_them(table_of):
    table = table_of(SEARCH)
    assert "stopped early" not in markdown(build_view(table))
    for run in table.runs()[:3]:
        stop_early(run)
    write_made_up_record(table.runs()[2], 66)  # it went on since
    view = build_view(table)
    assert (view.stopped, view.missing, view.planned) == (2, 5, 8)
    assert view.cells["pt"]["rte"].missing == 1
    assert view.cells["pt"]["rte"].values == [34]
    assert "2 configurations were stopped early" in markdown(view)


@pytest.fixture
def judged(tmp_path):
    """The run that is judged."""
    return resolve(
        {"task": "rte", "method": "pt", "steps": 90, "eval_every": 10, "results_dir": str(tmp_path / "results")}
    )


def test_rungs_are_a_ninth_and_a_third_of_the_steps_rounded_up_to_an_evaluation(judged):
    def steps(**fields):
        return list(rungs(judged.replace(**fields)))

    assert steps(steps=30_000, eval_every=1000) == [4000, 10_000]
    assert steps(steps=90, eval_every=10) == [10, 30]
    assert steps(steps=91, eval_every=10) == [20, 40]
    assert steps(steps=9, eval_every=4) == [4]  # both
    assert steps(steps=4, eval_every=4) == steps(steps=0, eval_every=4) == []  # nothing to save


def scores(config, *pairs) -> None:
    """Writes a rival's live metrics, with what else such a file holds."""
    folder = run_folder(config.results_dir, config.run_id)
    lines = [{"step": 1, "train/loss": 2.0}, *({"step": step, "validation/accuracy": score} for step, score in pairs)]
    unusable = ["[1]", '{"step": "9", "validation/accuracy": 99.0}', '{"step": 9, "validation/accuracy": null}', "\0\0"]
    text = "\n".join([*(json.dumps(line) for line in lines), *unusable, '{"step": 9, "valid'])
    write_atomically(folder / "metrics.jsonl", text)


def judge(config, *rivals) -> EarlyStopping:
    """What stops the run; rivals: (step, score) pairs of each."""
    others = [config.replace(prompt_lr=1.0 + i) for i in range(len(rivals))]
    for other, pairs in zip(others, rivals, strict=True):
        scores(other, *pairs)
    return EarlyStopping(config, tuple(other.run_id for other in others))


@pytest.mark.parametrize(
    ("score", "rivals", "stopped"),
    [
        (50, [], False),
        (50, [[(10, 90)]], False),  # two are too few to judge
        (50, [[(10, 90)], [(5, 90)]], False),  # of three, two have come so far
        (50, [[(10, 90)], [(10, 40)]], True),  # second of three
        (50, [[(10, 50)], [(10, 40)]], False),  # as good as the best
        (50, [[(10, 40), (30, 90)], [(10, 30)]], False),  # later scores do not count
        (50, [[(5, 90), (10, 20)], [(10, 30)]], True),  # earlier ones do
        (50, [[(10, 90)], [(10, 40)], [(10, 40)]], False),  # of four, the best two
        (50, [[(10, 90)], [(10, 60)], [(10, 40)]], True),
    ],
)
def test_who_is_not_in_the_best_third_at_a_rung_is_stopped(judged, score, rivals, stopped):
    assert judge(judged, *rivals)(10, [{"step": 10, "validation": {"accuracy": score}}]) is stopped
    assert is_stopped(judged) is stopped
    if stopped:
        assert json.loads(stopped_path(judged).read_text()).items() >= {"step": 10, "score": 50, "rung": "1/9"}.items()


def test_nobody_is_stopped_between_rungs_nor_where_nothing_validates(judged):
    stop = judge(judged, [(10, 90)], [(10, 80)])
    assert not stop(20, [{"step": 20, "validation": {"accuracy": 0}}])
    assert not stop(10, [{"step": 10, "validation": {}}])
    assert not is_stopped(judged)


def test_the_best_score_so_far_is_judged(judged):
    stop = judge(judged, [(10, 50)], [(10, 60)])
    assert not stop(10, [{"step": 5, "validation": {"accuracy": 70}}, {"step": 10, "validation": {"accuracy": 1}}])


def test_a_finished_rival_is_judged_by_its_record(judged):
    others = [judged.replace(prompt_lr=rate) for rate in (1.0, 2.0)]
    for other in others:
        write_made_up_record(PlannedRun(other, {}), 80, history=[{"step": 10, "validation": {"accuracy": 70}}])
    stop = EarlyStopping(judged, tuple(other.run_id for other in others))
    assert not stop(10, [{"step": 10, "validation": {"accuracy": 70}}])
    assert stop(10, [{"step": 10, "validation": {"accuracy": 69}}])
