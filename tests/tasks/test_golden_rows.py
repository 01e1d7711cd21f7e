"""Source, target, references and groups of every fixture row, under both protocols."""

import pytest
from conftest import ROOT
from golden_rows import GOLDEN, WORDS
from rendering import config_of, rendered

from adept.config.run import task_of
from adept.models.tiny import fixture_rows
from adept.tasks import TASKS


def test_every_task_has_fixture_rows_and_every_row_is_golden():
    files = {path.stem for path in (ROOT / "data" / "fixtures").glob("*.jsonl")}
    assert files == set(TASKS) == set(GOLDEN)
    for name in TASKS:
        rows = sum(len(row["answers"]) if name == "record" else 1 for row in fixture_rows(name))
        assert len(GOLDEN[name]) == rows, name


@pytest.mark.parametrize("protocol", ["paper", "official"])
@pytest.mark.parametrize("name", TASKS)
def test_source_target_and_references_of_every_fixture_row(name, protocol):
    expected = [gold.under(protocol) for gold in GOLDEN[name]]
    examples = rendered(name, protocol=protocol)
    assert [e.source for e in examples] == [gold.source for gold in expected]
    assert [e.target for e in examples] == [gold.target for gold in expected]
    assert [e.references for e in examples] == [gold.references or (gold.target,) for gold in expected]


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        *((name, protocol) for name in TASKS for protocol in ("paper", "official")),
    ],
)
def test_rows_of_one_question_share_a_group_and_no_others_do(name, protocol):
    examples = rendered(name, protocol=protocol)
    assert len({e.id for e in examples}) == len(examples)
    expected = [gold.under(protocol).group or e.id for gold, e in zip(GOLDEN[name], examples, strict=True)]
    assert [e.group for e in examples] == expected


@pytest.mark.parametrize("name", WORDS)
def test_label_words_stand_where_digits_do(name):
    digits, words = rendered(name), rendered(name, targets="words")
    assert {e.target for e in digits} == {str(i) for i in range(len(WORDS[name]))}  # the fixture has every class
    assert [e.target for e in words] == [WORDS[name][int(e.target)] for e in digits]
    assert all(e.references == (e.target,) for e in words)
    assert [e.source for e in words] == [e.source for e in digits]
    assert task_of(config_of(name)).labels == tuple(str(i) for i in range(len(WORDS[name])))
    assert task_of(config_of(name, targets="words")).labels == WORDS[name]


@pytest.mark.parametrize("name", [name for name in TASKS if name not in WORDS])
def test_free_text_has_no_labels_and_the_same_targets_with_words(name):
    assert task_of(config_of(name)).labels is None
    assert rendered(name, targets="words") == rendered(name)
