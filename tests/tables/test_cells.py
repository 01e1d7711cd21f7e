"""Cells are what their values say, whatever is printed for them; each is compared with the baseline of its table."""

import functools
import json

import pytest
from made_up_tables import make_table, write_made_up_record

from adept.base.errors import UserError
from adept.runs.layout import run_folder
from adept.tables.markdown import markdown
from adept.tables.planned_run import select_by_validation
from adept.tables.report import build_view
from adept.tables.search import search_csv


@pytest.fixture
def table_of(tmp_path):
    return functools.partial(make_table, tmp_path)


def finish(table, wrong=lambda _: 0, score=lambda _: 50):
    """Records of all runs with predictions for 40 rows, of which wrong(config) are wrong."""
    while left := [run for run in table.runs() if not run.pending and run.record is None]:
        for run in left:
            mistakes = wrong(run.config)
            write_made_up_record(run, score(run.config), test={"accuracy": 100 - 2.5 * mistakes, "f1_macro": 1.0})
            folder = run_folder(run.config.results_dir, run.id)
            folder.mkdir(parents=True, exist_ok=True)
            rows = [{"id": str(n), "prediction": "01"[n >= mistakes], "references": ["1"]} for n in range(40)]
            (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build_view(table)


# Times ----------------------------------------------------------------------------------------------------------------


def test_times_of_several_devices_are_named_and_not_averaged(table_of):
    table = table_of(
        "fields: {task: rte}\nseeds: [1, 2]\nrows: method\ncolumns: quantity\nquantities: [score, ms/step]\n"
        "grid: [{method: pt}, {method: adept}, {method: lora}]\n"
    )
    devices = {("pt", 1): "cpu, 1 threads", ("pt", 2): "cpu, 1 threads", ("lora", 2): "cpu, 1 threads"}
    for run in table.runs():
        device = devices.get((run.config.method, run.config.seed), "NVIDIA H200")
        write_made_up_record(run, 40, timing={"steps_per_second": 500}, provenance={"device": device})
    view = build_view(table)
    assert {row: cells["ms/step"].values for row, cells in view.cells.items()} == {
        "pt": [2, 2], "adept": [2, 2], "lora": [],
    }  # fmt: skip
    assert [cells["score"].values for cells in view.cells.values()] == [[60, 60]] * 3
    text = markdown(view)
    assert "cpu, 1 threads: pt, lora; NVIDIA H200: adept, lora." in text
    assert next(line for line in text.splitlines() if line.startswith("| lora")).split("|")[-2].strip() == "–"


def test_the_device_of_times_is_told_where_all_have_one(table_of):
    table = table_of("fields: {task: rte}\nrows: method\ncolumns: quantity\nquantities: [GB]\ngrid: [{method: pt}]\n")
    (run,) = table.runs()
    write_made_up_record(run, 40, peak_memory_bytes=2e9, provenance={"device": "NVIDIA H200"})
    assert "Times and memory: NVIDIA H200." in markdown(build_view(table))


# Keys -----------------------------------------------------------------------------------------------------------------


def test_a_rank_of_10_and_a_bottleneck_of_10_are_two_rows(table_of):
    table = table_of(
        "fields: {task: rte, prompt_len: 4}\n"
        "grid: [{method: dept, rank: [10, 20]}, {method: adept, bottleneck: [10, 30]}]\nrows: [rank, bottleneck]"
    )
    view = finish(table)
    assert {row: [cell.config.method for cell in cells.values()] for row, cells in view.cells.items()} == {
        "rank 10": ["dept"], "20": ["dept"], "bottleneck 10": ["adept"], "30": ["adept"],
    }  # fmt: skip
    assert [run.rivals for run in table.runs()] == [()] * 4  # no search in any cell


def test_two_values_of_one_label_stay_two_rows(table_of):
    view = finish(table_of("grid: [{task: rte, method: [pt, adept]}]\nlabels: {pt: ours, adept: ours}"))
    assert list(view.cells) == ["method pt", "method adept"]


def test_two_numbers_of_the_same_runs_are_two_columns(table_of):
    view = finish(table_of("grid: [{task: rte, method: pt}]\nquantities: [score, f1_macro]"))
    assert {column: cell.values for column, cell in view.cells["pt"].items()} == {"rte": [100], "rte f1_macro": [1]}


def test_labels_do_not_lose_a_task_from_the_mean(table_of):
    view = finish(
        table_of("grid: [{task: [rte, cb], method: pt}]\nlabels: {rte: Entailment}\nmeans: {both: [rte, cb]}")
    )
    assert view.cells["pt"]["both"].values == [100]


# The baseline ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "tested"),
    [
        ("", ("pt", "rte")),
        ("labels: {adept: ADePT, pt: PT}", ("PT", "rte")),
        ("rows: [model, method]", ("tiny-t5 pt", "rte")),
        ("rows: task\ncolumns: method", ("rte", "pt")),
    ],
)
def test_the_paired_test_finds_its_baseline_by_value(table_of, layout, tested):
    table = table_of(f"fields: {{task: rte, model: tiny-t5}}\ngrid: [{{method: [pt, adept]}}]\n{layout}")
    view = finish(table, wrong=lambda config: 20 if config.method == "pt" else 0)
    assert list(view.tests) == [tested]
    assert view.tests[tested]["difference"] == 50 and view.tests[tested]["p"] < 0.001


def test_each_model_has_a_baseline_of_its_own(table_of):
    table = table_of("grid: [{task: rte, method: [pt, adept], model: [tiny-t5, t5-base]}]\nrows: [model, method]")
    view = finish(table, wrong=lambda config: 20 if config.model == "t5-base" else 0)
    assert {key[0]: test["difference"] for key, test in view.tests.items()} == {"tiny-t5 pt": 0, "t5-base pt": 0}


def test_a_table_names_its_baseline(table_of):
    text = "grid: [{task: rte, method: adept, prompt_len: [3, 6]}]\nrows: prompt_len\ncompare_with: {prompt_len: 6}"
    view = finish(table_of(text), wrong=lambda config: 9 - config.prompt_len)
    assert list(view.tests) == [("3", "rte")]
    assert "Against prompt_len 6 on the same test rows" in markdown(view)


def test_a_baseline_that_fits_several_rows_is_not_guessed(table_of):
    view = finish(
        table_of(
            "fields: {task: rte}\ngrid: [{method: pt}, {method: adept, bottleneck: [3, 4]}]\nrows: [method, bottleneck]"
        )
    )
    assert not view.tests
    assert "compare_with (method = adept) fits several cells" in markdown(view)


@pytest.mark.parametrize(
    ("compare_with", "named"),
    [("{prompt_len: 3}", "neither in rows nor in columns"), ("[adept]", "must be a mapping")],
)
def test_a_wrong_baseline_is_one_line(table_of, compare_with, named):
    with pytest.raises(UserError, match=named):
        table_of(f"grid: [{{task: rte}}]\ncompare_with: {compare_with}")


# One statement about noise --------------------------------------------------------------------------------------------


def test_comparisons_are_corrected_and_small_sets_have_the_interval_of_their_score(table_of):
    text = "grid: [{task: rte, method: [pt, dept, adept]}]"
    view = finish(table_of(text), wrong=lambda config: {"pt": 20, "dept": 4, "adept": 0}[config.method])
    for record in (record for cell in view.all_cells for record in cell.records):
        record["sizes"]["test"] = 40
    printed = markdown(view)
    assert "(one seed each, so nothing is said of other seeds), p after Holm's correction for 2 comparisons:" in printed
    assert "\n| pt | -50.0 (95% -66.3 to -33.7, p &lt; 0.001) |\n" in printed
    assert "must differ" not in printed
    assert "95% intervals of the scores, by bootstrap: pt rte 33.7 to 66.3" in printed


# Searches -------------------------------------------------------------------------------------------------------------

SEARCH = "fields: {task: rte}\nseeds: [1, 2, 3]\ngrid: [{method: [pt, adept], prompt_lr: [0.1, 0.3]}]"


def test_the_choice_its_search_and_the_mean_without_the_searched_seed_are_told(table_of):
    view = finish(
        table_of(SEARCH),
        wrong=lambda config: 2 * config.seed,
        score=lambda config: (90 if config.prompt_lr == 0.3 else 80) - 6 * (config.seed - 1),
    )
    cell = view.cells["pt"]["rte"]
    assert [record["config"]["seed"] for record in cell.records] == [1, 2, 3]
    assert cell.values == [95, 90, 85] and cell.fresh_mean == 87.5
    assert [record["config"]["seed"] for record in cell.tested] == [2, 3]
    printed = markdown(view)
    _, choice = printed.split("\nChosen by validation; in brackets the mean over the other seeds")
    assert choice.splitlines()[2:6] == [
        "| method | rte |", "|---|---|", "| pt | prompt_lr = 0.3 (87.5) |", "| adept | prompt_lr = 0.3 (87.5) |",
    ]  # fmt: skip
    assert "| pt rte | prompt_lr = 0.1 | 80.0 | 95.0 |  |" in printed
    assert "| pt rte | prompt_lr = 0.3 | 90.0 | 95.0 | chosen |" in printed  # of the seed that the others have, too


def test_how_a_run_was_computed_is_no_configuration(table_of):
    table = table_of("grid: [{task: rte, method: pt, prompt_lr: [0.1, 0.3]}]")
    finish(table)
    run = table.runs()[0]
    write_made_up_record(run, 60, config=run.config.replace(eval_batch_size=256).flat())
    view = build_view(table)
    assert "Chosen by validation:\n\n| method | rte |\n|---|---|\n| pt | prompt_lr = 0.1 |\n" in markdown(view)
    assert "eval_batch_size" not in search_csv(view)


def test_planning_and_printing_choose_by_one_rule(table_of):
    table = table_of(SEARCH)
    view = finish(table, score=lambda config: 90 if config.prompt_lr == 0.3 else 80)
    repeated = {run.config.prompt_lr for run in table.runs() if run.config.seed > 1}
    assert repeated == {record["config"]["prompt_lr"] for cell in view.all_cells for record in cell.records} == {0.3}


def test_a_choice_is_decided_when_every_run_has_ended(table_of):
    table = table_of("grid: [{task: rte, method: pt, prompt_lr: [0.1, 0.3]}]")
    runs = table.runs()
    assert not select_by_validation(runs).decided
    write_made_up_record(runs[1], 70)
    assert not select_by_validation(table.runs()).decided
    write_made_up_record(runs[0], 60)
    selection = select_by_validation(table.runs())
    assert selection.decided and selection.runs[0].config.prompt_lr == 0.3
