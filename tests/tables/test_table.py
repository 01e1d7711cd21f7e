"""A table to its runs: cases, starts from other runs, seeds, profiles; and what is printed of them."""

import functools
from collections import Counter

import pytest
from made_up_tables import make_table, shown, write_made_up_record

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.tables.report import build_view
from adept.tables.table import resolve_once


@pytest.fixture
def table_of(tmp_path):
    """table_of(text, profile=None, **overrides): the table of a file with this text."""
    return functools.partial(make_table, tmp_path)


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
        ("{from: []}", "'from' must be text"),
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


def test_half_a_surrogate_pair_is_refused_in_a_line_that_can_be_printed(table_of):
    with pytest.raises(UserError, match=r"made_up.yaml: .*\\ud800") as caught:
        table_of('rows: "\\uD800"\ngrid: [{method: pt}]')
    str(caught.value).encode()


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


def test_times_come_from_a_run_of_their_own(table_of):
    text = (
        "fields: {task: rte, model: tiny-t5}\nseeds: [1, 2]\nrows: method\ncolumns: quantity\n"
        "quantities: [score, ms/step, GB]\ntimed: {steps: 7, eval_rows: 4}\n"
        "grid:\n  - {method: zero_shot}\n  - {name: prompts, method: pt, prompt_lr: [0.1, 0.2]}\n"
        "  - {from: prompts, method: spot, steps: 30}\n  - {method: adept, show: false}\n"
    )
    runs = table_of(text).runs()
    timed = [run for run in runs if run.timed]
    assert shown(timed, "method", "steps", "eval_rows", "seed", "prompt_lr") == [
        ("pt", 7, 4, 1, 0.1),
        ("?", "spot", 7, 4, 1, 0.1),
    ]
    assert {run.quantities for run in timed} == {("ms/step", "GB")}
    assert {run.quantities for run in runs if run not in timed} == {("score",)}
    assert len(runs) == 1 + 3 + 2 + 2 + 2  # the timed runs are neither started from nor repeated
    assert [run.config.steps for run in table_of(text, steps=3).runs() if run.timed] == [3, 3]
    same = [run for run in table_of(text, steps=3, eval_rows=4).runs() if run.timed]  # as long as those that are scored
    assert {run.quantities for run in same} == {("score", "ms/step", "GB")}
    for run in (run for _ in range(2) for run in table_of(text).runs()):  # twice: validation chooses in between
        if run.config.method == "pt" and not run.pending:
            seconds = 2 if run.timed else 9
            write_made_up_record(run, 40, timing={"steps_per_second": 1 / seconds}, peak_memory_bytes=seconds * 10**9)
    cells = build_view(table_of(text)).cells["pt"]
    assert {name: cell.values for name, cell in cells.items()} == {"score": [60, 60], "ms/step": [2000], "GB": [2]}


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


def test_flags_of_equal_values_and_other_types_are_resolved_apart():
    assert resolve_once("x", task="rte", method="pt", steps=1) == resolve({"task": "rte", "method": "pt", "steps": 1})
    with pytest.raises(UserError, match="--steps must be a whole number"):
        resolve_once("x", task="rte", method="pt", steps=True)
