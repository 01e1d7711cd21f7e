"""Tables to runs: cases, starts from other runs, seeds, profiles; the paper's 15 tables; early stopping."""

import functools
import json
from collections import Counter

import pytest
from conftest import ROOT

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.config.run import OPTIONS
from adept.runs.layout import run_folder
from adept.runs.record import SCHEMA, write_record
from adept.tables.early_stopping import EarlyStopping, is_stopped, rungs, stopped_path
from adept.tables.markdown import markdown
from adept.tables.published import PUBLISHED, published
from adept.tables.report import build_view
from adept.tables.table import PlannedRun, Table, resolve_once
from adept.tables.table_file import load_table

PROFILES = (None, "smoke", "laptop")
NEEDS = {1: "offset_shift", 2: "measure_offsets", 8: "fold", 11: "without_offset"}
"""Table -> the field that it cannot expand without."""


@pytest.fixture
def table_of(tmp_path):
    """table_of(text, profile=None, **overrides): the table of a file with this text; its records are in tmp_path."""

    def make(text: str, profile: str | None = None, **overrides) -> Table:
        file = tmp_path / "made_up.yaml"
        file.write_text("title: Made up\n" + text)
        return load_table(file, {"results_dir": str(tmp_path / "results"), **overrides}, profile)

    return make


def write_made_up_record(run: PlannedRun, score: float, **parts) -> None:
    """Score on the metric that selects; 100 - score on the others and on the test set."""
    config = run.config
    validation = {"accuracy": 100 - score, config.select_on: score}
    record = {
        "schema": SCHEMA, "run_id": config.run_id, "config": config.flat(), "best_step": 20, "trainable_params": 7,
        "notes": [], "sizes": {"train": 100, "validation": 50, "test": 400},
        "timing": {"test_examples_per_second": 12.0}, "history": [{"step": 20, "validation": validation}],
        "validation": validation, "test": {"accuracy": 100 - score, "exact_match": 3, "squad_f1": 4},
    }  # fmt: skip
    write_record(config.results_dir, {**record, **parts})


def stop_early(run: PlannedRun) -> None:
    write_atomically(stopped_path(run.config), "{}\n")


def shown(runs, *fields) -> list[tuple]:
    """The runs' values of these fields, "?" before the ones that are pending."""
    return [("?",) * run.pending + tuple(run.config.get(name) for name in fields) for run in runs]


# Cases ----------------------------------------------------------------------------------------------------------------


def test_cases_are_fields_that_vary_together(table_of):
    cases = "[{prompt_len: 20, bottleneck: 39}, {prompt_len: 40}]"
    grid = f"grid: [{{method: adept, task: rte, cases: {cases}, bottleneck: 9, seed: [1, 2]}}]"
    assert shown(table_of(grid).runs(), "prompt_len", "bottleneck", "seed") == [
        (20, 39, 1),
        (20, 39, 2),
        (40, 9, 1),
        (40, 9, 2),
    ]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("{cases: [3]}", "'cases' must be a list of"),
        ("{cases: {prompt_len: 3}}", "'cases' must be a list"),
        ("{from: nothing}", "'from: nothing' names no entry above it"),
        ("{name: a, from: a}", "'from: a' names no entry above it"),
        ("{name: 3}", "'name' must be text"),
        ("{show: 0}", "'show' must be true or false"),
        ("{quantities: f1}", "'quantities' must be a list"),
    ],
)
def test_entries_of_another_form_are_refused(table_of, entry, named):
    with pytest.raises(UserError, match=named) as caught:
        table_of(f"grid: [{entry}]")
    assert "made_up.yaml" in str(caught.value)


# Starts from other runs -----------------------------------------------------------------------------------------------

FROM = """\
fields: {task: [rte, cb], method: [pt, adept], prompt_len: 5, seed: [1, 2], eval_every: 7}
grid:
  - {name: sources, show: false, prompt_lr: [0.1, 0.3]}
  - {from: sources, eval_every: 9, eval_rows: 4}
"""


def children(table):
    return [run for run in table.runs() if run.config.init_from is not None]


def test_children_take_over_fields_and_weights_of_the_best_of_each_cell_and_seed(table_of):
    table = table_of(FROM)
    parents = [run for run in table.runs() if run.config.init_from is None]
    assert len(parents) == 16
    best = {}
    for run in parents:
        other = run.config.seed == 2 or run.config.task == "cb"  # there the higher rate wins
        chosen = (run.config.prompt_lr == 0.3) == other
        write_made_up_record(run, 60 if chosen else 40)
        best |= {(run.config.task, run.config.method, run.config.seed): run.id} if chosen else {}
    made = children(table)
    assert len(made) == len(best) == 8
    for run in made:
        key = run.config.task, run.config.method, run.config.seed
        assert run.config.init_from == best[key]
        assert run.config.prompt_lr == (0.3 if key[2] == 2 or key[0] == "cb" else 0.1)
        assert (run.config.prompt_len, run.config.eval_every, run.config.eval_rows) == (5, 9, 4)
        assert run.config.steps == 0
        assert not run.pending


def test_children_wait_until_all_parents_of_their_cell_and_seed_are_there(table_of):
    table = table_of(FROM)
    parents = table.runs()[:16]
    assert [run.pending for run in children(table)] == [True] * 8
    for run in parents[:-1]:
        write_made_up_record(run, 50)
    assert [run.pending for run in children(table)].count(True) == 1
    assert sum(run.pending for run in table.runs()) == 1
    write_made_up_record(parents[-1], 50)
    assert not any(run.pending for run in children(table))


def test_children_may_train_on_with_steps_tasks_and_seeds_of_their_own(table_of):
    grid = """\
fields: {method: pt}
grid:
  - {name: sources, show: false, task: [mnli, qqp], prompt_lr: 0.1, steps: 50}
  - {from: sources, task: [boolq, cb], few_shot: 16, steps: [100, 200], seed: [4, 5]}
"""
    table = table_of(grid)
    for run in table.runs()[:2]:
        write_made_up_record(run, 50)
    made = children(table)
    assert len(made) == 2 * 2 * 2 * 2
    assert {
        (run.config.task, run.config.steps, run.config.seed, run.config.few_shot, run.config.prompt_lr) for run in made
    } == {(task, steps, seed, 16, 0.1) for task in ("boolq", "cb") for steps in (100, 200) for seed in (4, 5)}
    assert {run.config.init_from for run in made} == {run.id for run in table.runs()[:2]}


def test_overrides_reach_parents_and_do_not_make_children_train(table_of):
    table = table_of(FROM, steps="11", prompt_lr="0.7", eval_every="3", task="rte")
    for run in table.runs()[:4]:
        assert (run.config.steps, run.config.prompt_lr, run.config.task) == (11, 0.7, "rte")
        write_made_up_record(run, 50)
    assert len(children(table)) == 4
    for run in children(table):
        assert (run.config.steps, run.config.prompt_lr, run.config.eval_every, run.config.task) == (0, 0.7, 3, "rte")


def test_two_entries_of_one_name_are_parents_of_the_same_children(table_of):
    grid = """\
fields: {task: rte, steps: 0}
grid: [{name: a, method: pt}, {name: a, method: adept}, {name: b, method: lora}, {from: a, eval_rows: [3, 4]}]
"""
    assert [method for (method,) in shown(children(table_of(grid)), "method")] == ["pt", "pt", "adept", "adept"]


# Seeds ----------------------------------------------------------------------------------------------------------------

SEEDS = """\
fields: {task: [rte, cb]}
seeds: [1, 2, 3]
grid:
  - {method: pt, prompt_lr: [0.1, 0.3, 0.5]}
  - {method: zero_shot}
"""


def test_the_first_seed_searches_and_the_others_repeat_what_validation_chose(table_of):
    table = table_of(SEEDS)
    runs = table.runs()
    assert shown(runs[:6], "seed", "prompt_lr") == [(1, 0.1), (1, 0.3), (1, 0.5)] * 2
    assert [run.pending for run in runs] == [False] * 6 + [True] * 4 + [False] * 2
    for run in runs[:6]:
        write_made_up_record(run, 90 if run.config.prompt_lr == (0.3 if run.config.task == "rte" else 0.5) else 80)
    runs = table.runs()
    again = [("rte", 2, 0.3), ("rte", 3, 0.3), ("cb", 2, 0.5), ("cb", 3, 0.5)]
    assert shown(runs[6:10], "task", "seed", "prompt_lr") == again
    assert not any(run.pending for run in runs)


def test_untrained_runs_are_not_repeated(table_of):
    assert shown(table_of(SEEDS).runs()[-2:], "method", "seed") == [("zero_shot", 1)] * 2
    assert len(table_of("seeds: [1, 2]\ngrid: [{task: rte, method: pt, steps: [0]}]").runs()) == 1


def test_an_overridden_seed_or_an_entrys_own_seeds_switch_the_repetition_off(table_of):
    assert {run.config.seed for run in table_of(SEEDS, seed="9").runs()} == {9}
    assert len(table_of(SEEDS, seed="9").runs()) == 8
    own = "seeds: [1, 2, 3]\ngrid: [{task: rte, method: pt, seed: [7, 8], prompt_lr: [0.1, 0.3]}]"
    assert shown(table_of(own).runs(), "seed", "prompt_lr") == [(7, 0.1), (7, 0.3), (8, 0.1), (8, 0.3)]


def test_where_nothing_validates_the_first_configuration_stays(table_of):
    table = table_of("seeds: [1, 2]\ngrid: [{task: rte, method: pt, prompt_lr: [0.1, 0.3]}]")
    for run in table.runs()[:2]:
        write_made_up_record(run, 50, validation={})
    assert shown(table.runs(), "seed", "prompt_lr") == [(1, 0.1), (1, 0.3), (2, 0.1)]


# What is printed ------------------------------------------------------------------------------------------------------


def test_hidden_entries_own_quantities_and_labels(table_of):
    text = """\
fields: {task: [rte, nq]}
grid:
  - {method: pt, prompt_len: 4, show: false}
  - {method: pt}
  - {method: adept, quantities: [samples/s, score]}
  - {method: lora, task: nq, quantities: [exact_match]}
rows: method
columns: [task, quantity]
labels: {score: "", lora: LoRA, rte: Entailment}
"""
    table = table_of(text)
    for run in table.runs():
        write_made_up_record(run, 70)
    view = build_view(table)
    assert {row: list(cells) for row, cells in view.cells.items()} == {
        "pt": ["Entailment", "nq"],
        "adept": ["Entailment samples/s", "Entailment", "nq samples/s", "nq"],
        "LoRA": ["nq exact_match"],
    }
    assert [cell.planned for cell in view.cells["pt"].values()] == [1, 1]  # not the hidden runs
    assert view.cells["adept"]["Entailment samples/s"].values == [12.0]
    assert view.cells["adept"]["Entailment"].values == [30]
    assert view.cells["adept"]["nq"].metric == "squad_f1"
    assert view.cells["LoRA"]["nq exact_match"].values == [3]


# Profiles -------------------------------------------------------------------------------------------------------------


def test_a_profile_keeps_the_axes_and_searches_less(table_of):
    text = """\
fields: {model: t5-base, task: [rte, cb]}
seeds: [1, 2, 3]
grid:
  - {method: [pt, adept], prompt_len: [10, 20, 30], prompt_lr: [0.3, 0.4, 0.5], batch_size: [1, 2]}
  - {method: adept, cases: [{bottleneck: 3}, {bottleneck: 4}, {bottleneck: 5}], prompt_lr: [0.6, 0.7], show: false}
  - {method: lora, cases: [{prompt_lr: 0.1}, {prompt_len: 5}, {prompt_len: 6}]}
columns: [task, prompt_len]
"""
    runs = [run for run in table_of(text, "smoke").runs() if run.config.seed == 1]
    assert {run.config.model for run in runs} == {"tiny-t5"}
    assert {run.config.steps for run in runs} == {2}
    first = [run for run in runs if run.config.get("prompt_len") in (10, 20, 30)]
    assert Counter(shown(first, "prompt_lr", "batch_size")) == {
        (0.3, 2): 12,
        (0.4, 2): 12,
    }  # the profile's batch_size overrides
    assert Counter(shown(first, "task", "method", "prompt_len")).most_common(1)[0][1] == 2
    hidden = [run for run in runs if not run.shown]
    assert set(shown(hidden, "bottleneck", "prompt_lr")) == {(3, 0.6), (4, 0.6)}  # `cases` first, of the next list one
    assert {run.config.seed for run in table_of(text, "smoke").runs()} == {1, 2}


def test_a_profile_leaves_one_configuration_and_its_labels_undo_its_models(table_of):
    text = """\
fields: {model: [t5-base, llama3-8b], task: rte, method: pt}
grid: [{prompt_lr: [0.3, 0.4], seed: [1, 2]}]
rows: model
"""
    table = table_of(text, "laptop")
    assert shown(table.runs(), "task", "prompt_lr", "seed") == [("movie_reviews", 0.01, 42)] * 2
    assert [run.config.model for run in table.runs()] == ["smollm2-135m", "llama3-8b"]
    assert list(build_view(table_of(text, "smoke")).cells) == ["tiny-t5", "llama3-8b"]


# The paper's tables ---------------------------------------------------------------------------------------------------


@functools.cache
def paper_table(number: int, profile: str | None) -> Table:
    if number in NEEDS and NEEDS[number] not in OPTIONS:
        pytest.skip(f"table {number} needs the field '{NEEDS[number]}', which RunConfig does not have yet")
    overrides = {"results_dir": str(ROOT / "results" / "nowhere")}
    return load_table(ROOT / "configs" / f"table{number}.yaml", overrides, profile)


@pytest.mark.parametrize("number", range(1, 16))
@pytest.mark.parametrize("profile", PROFILES)
def test_the_papers_tables_expand_and_have_a_cell_for_each_of_its_numbers(number, profile):
    view = build_view(paper_table(number, profile))
    assert view.planned and view.missing == view.planned
    cells = {(row, column) for row, columns in view.cells.items() for column in columns}
    theirs = {(line.row, line.column) for line in published(f"table{number}") if line.row}
    assert theirs, f"{PUBLISHED}/table{number}.csv names no cell"
    if profile != "laptop":  # another task and another model
        assert theirs - cells == set()


COUNTS = {
    3: 675,
    4: 264,
    5: 72,
    6: 60,
    7: 24,
    9: 8,
    10: 9 + 6 + 4,
    12: 4 * 8,
    13: 6 * 8,
    14: 2 * 8,
    15: 3 * (5 + 5 * 3 * 3 * 3),
}


@pytest.mark.parametrize("number", COUNTS)
def test_the_papers_grids_have_as_many_runs_as_their_notes_say(number):
    assert len(paper_table(number, None).runs()) == COUNTS[number]


@pytest.mark.parametrize("number", [3, 4])
def test_small_tasks_are_searched_and_large_ones_are_not(number):
    """Appendix E: 24 configurations of ADePT (4 shapes, 3 prompt rates, 2 offset rates), all on a budget of 76,800."""
    runs = paper_table(number, None).runs()
    searched = Counter((run.config.method, run.config.task) for run in runs if not run.pending)
    for task in {3: "sst2 stsb mrpc rte cola multirc boolq wic wsc cb", 4: "winogrande scitail paws"}[number].split():
        assert [searched[method, task] for method in ("adept", "dept", "pt", "lora", "full")] == [24, 24, 3, 1, 1], task
    for task in {3: "mnli qqp qnli", 4: "nq hotpotqa searchqa newsqa yelp_polarity"}[number].split():
        assert [searched[method, task] for method in ("adept", "dept", "pt", "lora", "full")] == [1] * 5, task
    seeds = Counter(run.config.seed for run in runs if run.pending)
    assert seeds == {43: len(searched), 44: len(searched)}
    for run in runs:
        config = run.config
        if config.method == "adept" and config.task == "rte":
            assert config.prompt_len * 768 + 2 * 768 * config.bottleneck + config.bottleneck + 768 <= 76_800


def test_what_is_trained_for_one_table_is_not_trained_again_for_another():
    ids = [{run.id for run in paper_table(number, None).runs() if not run.pending} for number in (12, 13, 14, 5, 6)]
    assert len(ids[0] & ids[1]) == 0  # bottlenecks 5, 10, 20, 30 against 19
    assert len(ids[1] & ids[2]) == 6  # 60 tokens and bottleneck 19
    assert ids[4] <= ids[3]


# Early stopping -------------------------------------------------------------------------------------------------------

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


def test_a_sets_of_flags_is_resolved_by_its_types():
    assert resolve_once("x", task="rte", method="pt", steps=1) == resolve({"task": "rte", "method": "pt", "steps": 1})
    with pytest.raises(UserError, match="--steps must be a whole number"):
        resolve_once("x", task="rte", method="pt", steps=True)
