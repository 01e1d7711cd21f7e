"""Options that only some tasks have: who has them, and what each one changes."""

import dataclasses

import pytest
from golden_rows import GOLDEN
from rendering import config_of, rendered

from adept.base.errors import UserError
from adept.config.run import TASK_OPTIONS
from adept.tasks import TASKS

QA = {"nq", "hotpotqa", "searchqa", "newsqa", "squad"}
OWNERS = {
    "stsb_rounding": {"stsb"},
    "qa_references": QA,
    "pad_punctuation": QA,
    "cut_references": QA | {"record"},
    "squad_target": {"squad"},
    "record_scoring": {"record"},
    "winogrande_options": {"winogrande"},
    "scitail_test": {"scitail"},
    "mbpp_prompt": {"mbpp"},
    "mbpp_cleanup": {"mbpp"},
    "temperature": {"mbpp"},
    "top_p": {"mbpp"},
    "samples": {"mbpp"},
}


def test_the_options_are_those_of_these_tasks():
    assert {
        name: {task.name for task in TASKS.values() if name in task.options.own_options()} for name in TASK_OPTIONS
    } == OWNERS


@pytest.mark.parametrize("name", TASKS)
def test_an_option_of_another_task_is_refused_and_the_run_does_not_have_it(name):
    config = config_of(name)
    for option, tasks in OWNERS.items():
        if name in tasks:
            assert config.get(option) is not None
            continue
        assert config.get(option) is None
        value = getattr(config_of(min(tasks)), option)
        with pytest.raises(UserError, match=f"--{option} has no effect on task '{name}'"):
            config_of(name, **{option: value})


UNPADDED = (
    "question: where did françois brun open a café context: <P> François Brun 's café opened in the U.S. in 1921 . </P>"
)
CHOIR = "question: Who led the choir? context: The choir was led by Clara O'Neil from 1934 on."


@pytest.mark.parametrize(
    ("name", "flags", "number", "changes"),
    [
        (
            "winogrande",
            {"winogrande_options": "first_twice"},
            1,
            {"source": GOLDEN["winogrande"][1].official["source"]},
        ),
        ("nq", {"qa_references": "first"}, 0, {"references": ("Oslo",)}),
        ("nq", {"pad_punctuation": False}, 1, {"source": UNPADDED, "target": "the U.S.", "references": ("the U.S.",)}),
        ("squad", {"qa_references": "first"}, 1, {"references": ("the old harbour",)}),
        (
            "squad",
            {"squad_target": "printed"},
            0,
            {"target": '[ " Clara O \' Neil " ]', "references": ('[ " Clara O \' Neil " ]',)},
        ),
        (
            "squad",
            {"squad_target": "printed", "pad_punctuation": False},
            0,
            {"source": CHOIR, "target": '["Clara O\'Neil"]', "references": ('["Clara O\'Neil"]',)},
        ),
        ("record", {"record_scoring": "row"}, 4, {"references": ("Luton Town",)}),
        ("stsb", {"stsb_rounding": 0.1}, 2, {"target": "3.9", "references": ("3.9",)}),
        ("scitail", {"scitail_test": "hub"}, 1, {}),
        ("nq", {"cut_references": True}, 0, {}),  # cut when tokens are known
        ("mbpp", {"mbpp_cleanup": "lines"}, 0, {}),
    ],
)
def test_an_option_changes_this_and_nothing_else(name, flags, number, changes):
    (plain, changed) = (rendered(name, **more)[number] for more in ({}, flags))
    changes = {"group": changed.group if name == "record" else plain.group, **changes}
    assert changed == dataclasses.replace(plain, **changes)


def test_the_official_protocol_can_be_mended_one_option_at_a_time():
    for name, flags in (
        ("winogrande", {"winogrande_options": "both"}),
        ("stsb", {"stsb_rounding": 0.2}),
        ("nq", {"qa_references": "all"}),
        ("record", {"record_scoring": "query"}),
        ("squad", {"squad_target": "first", "qa_references": "all"}),
    ):
        assert rendered(name, protocol="official") != rendered(name, protocol="official", **flags) == rendered(name), (
            name
        )


@pytest.mark.parametrize(
    ("name", "prefix"), [("mrpc", "mrpc"), ("boolq", "superglue-boolq"), ("wsc", "superglue-wsc.fixed"), ("nq", "nq")]
)
def test_a_task_prefix_stands_in_front_of_every_source_and_changes_nothing_else(name, prefix):
    plain, prefixed = rendered(name), rendered(name, task_prefix=True)
    assert [e.source for e in prefixed] == [f"{prefix} {e.source}" for e in plain]
    assert [(e.target, e.references) for e in prefixed] == [(e.target, e.references) for e in plain]
