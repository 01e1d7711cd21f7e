"""What limits on tokens cut away is told, and so are answers that cannot be generated."""

import pytest

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.config.run import task_of
from adept.data.dataset import encode_data, load_data, with_steps
from adept.data.truncation import percent, unreachable_answers
from adept.training.loop import run
from adept.training.session import open_session


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_rows_cut_and_longest_lengths_are_those_of_the_tokenizer(make_config, family):
    config = make_config(family, max_source_len=30)
    session = open_session(config)
    data = encode_data(load_data(task_of(config), config), session.codec)
    tokenizer = session.codec.tokenizer
    cue = 0 if family == "t5" else len(tokenizer("\nanswer:", add_special_tokens=False).input_ids)
    rows = [*data.train, *data.validation, *data.test]
    lengths = [len(tokenizer(row.source).input_ids) + cue for row in rows]
    assert data.truncation.longest_source == max(lengths) > 30
    assert data.truncation.sources_cut == sum(n > 30 for n in lengths) > 0
    assert data.truncation.rows == len(rows) and data.truncation.targets_cut == 0
    assert data.truncation.longest_target == data.truncation.max_target_len


def test_it_is_one_line_at_the_start_and_in_the_record(make_config, capsys):
    record = run(make_config(steps=1, max_source_len=30))
    told = record["truncation"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rte: sources")]
    assert lines == [
        f"rte: sources up to {told['longest_source']} tokens of --max_source_len 30, "
        f"{percent(told['sources_cut'], told['rows'])} of {told['rows']} cut; targets up to {told['longest_target']} "
        f"tokens of --max_target_len {told['max_target_len']}, none of {told['rows']} cut"
    ]
    assert told["unreachable_answers"] == 0


def test_answers_beyond_what_is_generated_are_told(make_config, capsys):
    config = make_config(task="nq", steps=1, max_new_tokens=1)
    record = run(config)
    session = open_session(config)
    data = load_data(task_of(config), config)
    rows = [*data.validation, *data.test]
    codec = session.codec
    expected = sum(all(len(codec.target_ids(text)) > 2 for text in row.references) for row in rows)
    assert record["truncation"]["unreachable_answers"] == expected > 0
    assert unreachable_answers(codec, rows, 10_000) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if "count as wrong" in line)
    assert f"of the {len(rows):,} evaluated rows" in line and "the 1 tokens that are generated" in line


def test_targets_that_are_cut_are_counted(make_config):
    record = run(make_config(task="nq", steps=1, max_target_len=2))
    assert record["truncation"]["targets_cut"] > 0 and record["truncation"]["longest_target"] > 2


def test_shares_in_words():
    assert [percent(0, 9), percent(9, 9), percent(1, 300), percent(50, 200)] == ["none", "all", "0.33%", "25%"]


# --epochs -------------------------------------------------------------------------------------------------------------


def test_epochs_are_steps_and_have_their_id(make_config):
    by_epochs = with_steps(make_config(steps=None, epochs=2.5, batch_size=7, warmup_steps=None))
    assert by_epochs.steps == 10 and by_epochs.warmup_steps == 1  # 24 rows: 4 batches an epoch
    assert by_epochs.run_id == make_config(steps=10, batch_size=7).run_id
    assert with_steps(make_config(steps=None, epochs=3, batch_size=4, grad_accum=4)).steps == 5  # 18 batches by 4
    assert with_steps(make_config(steps=None, epochs=1, few_shot=6, batch_size=4)).steps == 2


def test_a_run_of_one_epoch_sees_every_row_once(make_config):
    record = run(make_config(steps=None, epochs=1, batch_size=5))
    assert record["config"]["steps"] == 5 and record["config"]["epochs"] is None


def test_steps_and_epochs_together_are_refused():
    with pytest.raises(UserError, match="both say how long"):
        resolve({"task": "rte", "steps": 3, "epochs": 1})
    with pytest.raises(UserError, match="--epochs has no effect on method 'zero_shot'"):
        resolve({"task": "rte", "method": "zero_shot", "epochs": 1})


def test_a_tables_steps_give_way_to_epochs(tmp_path):
    from small_sweeps import write_table

    from adept.tables.table_file import load_table

    file = write_table(tmp_path, [{"prompt_lr": [1]}, {"prompt_lr": [2], "steps": 0}])
    runs = load_table(file, {"epochs": 1, "batch_size": 8}).runs()
    assert [run.config.steps for run in runs] == [5, 0]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("learning_rate", "prompt_lr and offset_lr"), ("num_train_epochs", "epochs"), ("warmup_ratio", "warmup_steps"),
     ("per_device_train_batch_size", "batch_size"), ("max_seq_length", "max_source_len")],
)  # fmt: skip
def test_names_of_the_ecosystem_get_ours(theirs, ours, capsys):
    from adept.commands.main import main

    assert main(["train", "--task", "rte", f"--{theirs}", "3"]) == 2
    assert capsys.readouterr().err.strip() == f"error: unknown flag --{theirs}; here it is {ours}" + (
        ", or lr for methods with one rate" if theirs == "learning_rate" else ""
    )
    with pytest.raises(UserError, match=f"here it is {ours}"):
        resolve({"task": "rte", theirs: 3})


def test_every_name_that_is_given_in_place_of_another_is_an_option():
    from adept.config.other_names import OTHER_NAMES
    from adept.config.run import OPTIONS

    names = {ours.split()[0].rstrip(",") for ours in OTHER_NAMES.values() if not ours.startswith("(")}
    assert names <= OPTIONS.keys() | {"rerun"} and not OTHER_NAMES.keys() & OPTIONS.keys()
