"""GSM8K: worked answers of decoder-only models."""

import pytest

from adept.base.errors import UserError
from adept.config.run import task_of
from adept.metrics import Answers, score
from adept.models.tiny import fixture_rows
from adept.training.loop import run


def test_a_run_tests_the_last_step_and_the_fixtures_own_solutions_are_right(make_config):
    config = make_config("codegen", "adept", task="gsm8k", max_source_len=64, max_target_len=24, eval_batch_size=4)
    answers = [task_of(config).answer(row) for row in fixture_rows("gsm8k")]
    perfect = Answers([target for target, _ in answers], [references for _, references in answers])
    assert score(["final_number"], perfect) == {"final_number": 100.0}
    record = run(config)
    assert record["sizes"]["validation"] == 0 and record["best_step"] == config.steps
    assert set(record["test"]) == {"final_number"}


def test_t5_cannot_write_its_signs(make_config):
    with pytest.raises(UserError, match="task 'gsm8k' needs a decoder-only model, such as --model codegen-350m"):
        run(make_config("t5", "adept", task="gsm8k"))
