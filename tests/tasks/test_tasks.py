"""Text, targets, splits and switches of every task.

GOLDEN is written from the protocol's description (Section 4.1, Appendix C and D, the released code's preprocessing),
not from this code.
"""

import ast
import contextlib
import dataclasses
import functools
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import regex
import torch
from conftest import ROOT

from adept.models.tiny import fixture_rows
from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.config.run import task_of
from adept.data.codec import Codec
from adept.data.dataset import load_data, render_rows
from adept.data.example import Example
from adept.data.sources import load_rows
from adept.data.splits import split_rows
from adept.metrics.completions import clean_completion, indentation
from adept.tasks import GROUPS, TASKS, find_task, task_names
from adept.tasks.mbpp import tested_function
from adept.tasks.mrqa import pad_punctuation, printed_answers
from adept.tasks.superglue import mark_span
from adept.tasks.task import Split
from adept.training.session import open_session


def config_of(name: str, **flags):
    return resolve({"task": name, **flags, **({"allow_code_execution": True} if TASKS[name].runs_code else {})})


def rendered(name: str, rows: list[dict] | None = None, **flags) -> list[Example]:
    """The examples of a task's fixture rows, or of `rows`, under --flags."""
    config = config_of(name, **flags)
    made = render_rows(task_of(config), "train", rows or fixture_rows(name), "fixture", config)
    return [example for examples in made for example in examples]


# Golden text ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gold:
    source: str
    target: str
    references: tuple[str, ...] = ()  # none: the target alone
    group: str = ""  # none: the example is its own question
    official: dict[str, Any] = field(default_factory=dict)  # what --protocol official changes

    def under(self, protocol: str) -> "Gold":
        return dataclasses.replace(self, **self.official) if protocol == "official" else self


LADDER = "sentence: The ladder did not fit into the shed because the _ was too long. option0: ladder"
# the last <br> is a blank
GARDEN = "Sent 1: Anna planted beans in May. Sent 2: Her brother Tom watered them every evening. "
FERRY = "The ferry Aurora reached Port Ellen on Monday. Captain Ida Berg thanked her crew. Aurora arrives a day early. Ida Berg thanks the crew"
CUP = '"We won," said Omar Haddad of Luton. "At last!" Luton beat Derby. Will Haddad stay? The final is on Sunday'
CUP_1 = (
    f"record query: For @placeholder it was the first cup. entities: Omar Haddad, Haddad, Luton, Derby passage: {CUP}"
)
CUP_2 = f"record query: The fans of @placeholder sang. entities: Omar Haddad, Luton, Luton Town, the Hatters, Derby passage: {CUP}"
TOWN = ("Luton", "Luton Town", "the Hatters")
DOUBLE = (
    "\n\ndef double_all(values):\n"
    '\t"""\n\tWrite a function to double every number of a list.\n'
    '\t>>> double_all([1, 2])\n\t[2, 4]\n\t>>> double_all([])\n\t[]\n\t>>> double_all([-3])\n\t[-6]\n\t"""\n'
)
EVEN = (
    "\n\ndef count_even(values):\n"
    '    """\n    Write a function to count the even numbers of a list.\n'
    '    >>> count_even([1, 2, 4])\n    2\n    >>> count_even([])\n    0\n    >>> count_even([7])\n    0\n    """\n'
)
CHECK = "\n\nMETADATA = {}\n\n\ndef check(candidate):\n"
DOUBLE_TEST = f"{CHECK}    assert candidate([1, 2]) == [2, 4]\n    assert candidate([]) == []\n    assert candidate([-3]) == [-6]\n\n"
EVEN_TEST = (
    f"{CHECK}    assert candidate([1, 2, 4]) == 2\n    assert candidate([]) == 0\n    assert candidate([7]) == 0\n\n"
)

GOLDEN: dict[str, list[Gold]] = {
    "mnli": [
        Gold("premise: The library opens at nine on weekdays. hypothesis: The library is open at ten on a Tuesday.", "0"),
        Gold("premise: Two boys flew a kite on the hill. hypothesis: The boys are brothers.", "1"),
        Gold("premise: Nobody in the village owned a car. hypothesis: Every family there drove its own car.", "2"),
    ],
    "qqp": [
        Gold("question1: How do I learn to swim? question2: What is the best way to learn swimming?", "1"),
        Gold("question1: How tall is an oak tree? question2: How old can an oak tree get?", "0"),
    ],
    "qnli": [
        Gold("question: Where does the river rise? sentence: The river rises in a small lake near the border.", "0"),
        Gold("question: When was the bridge built? sentence: The bridge is made of red brick.", "1"),
    ],
    "sst2": [
        Gold("sentence: a warm and funny little film ", "1"),
        Gold("sentence: two hours that feel like six ", "0"),
        Gold("sentence: sharp , tender and beautifully acted ", "1"),
    ],
    "stsb": [
        Gold("sentence1: A man is playing a flute. sentence2: A man plays the flute.", "4.8", ("4.75",), official={"references": ("4.8",)}),
        Gold("sentence1: Two dogs run on a beach. sentence2: A cat sleeps on a sofa.", "0.4"),
        Gold("sentence1: A woman is slicing bread. sentence2: Someone is cutting bread.", "4.0", ("3.9",), official={"target": "3.9"}),
    ],
    "mrpc": [
        Gold("sentence1: The council approved the plan on Monday . sentence2: On Monday , the plan was approved by the council .", "1"),
        Gold("sentence1: Shares rose 3 % in early trading . sentence2: Shares fell 3 % in early trading .", "0"),
        Gold("sentence1: He was born in Oslo in 1950 . sentence2: He was born in 1950 , in Oslo .", "1"),
    ],
    "rte": [
        Gold("sentence1: The ferry to Hallig leaves at noon and takes an hour. sentence2: The ferry takes an hour.", "0"),
        Gold("sentence1: Maria sold her bakery to the town. sentence2: Maria bought a bakery.", "1"),
        Gold("sentence1: All four bridges were closed during the storm. sentence2: A bridge was closed.", "0"),
        Gold("sentence1: The museum opens on Sundays only. sentence2: The museum opens daily.", "1"),
    ],
    "cola": [
        Gold("sentence: The gardener watered the roses.", "1"),
        Gold("sentence: The gardener roses the watered.", "0"),
        Gold("sentence: Who did you say left early?", "1"),
    ],
    "multirc": [
        Gold(f"question: Who watered the beans? answer: Tom paragraph: {GARDEN}", "1", group="0-0"),
        Gold(f"question: Who watered the beans? answer: Anna paragraph: {GARDEN}", "0", group="0-0"),
        Gold(f"question: When were they planted? answer: In May paragraph: {GARDEN}", "1", group="0-1"),
        Gold("question: Did all pots break? answer: Yes paragraph: The kiln cooled overnight; 3 < 5 pots broke.", "0", group="1-0"),
    ],
    "boolq": [
        Gold("question: is the moon smaller than the earth passage: The Moon's diameter is about a quarter of the Earth's.", "1"),
        Gold("question: can penguins fly passage: Penguins are flightless seabirds that swim well.", "0"),
    ],
    "wic": [
        Gold("sentence1: She sat on the bank of the river. sentence2: He keeps his money in a bank. word: bank", "0"),
        Gold("sentence1: They run every morning. sentence2: We run around the park. word: run", "1"),
    ],
    "wsc": [
        Gold("text: The cat slept on * the mat * because # it # was warm.", "1"),
        Gold("text: When # she # reached the gate, * Maria * waved.", "1"),
        # "The old man" is not there, so "his" is sought two words late
        Gold("text: Under the lamp, the old man read his letter.", "1"),
        Gold("text: * Lena * called Ruth, but she was out.", "0"),
    ],
    "cb": [
        Gold("premise: I don't think the train will be late. It never is. hypothesis: the train will be late", "1"),
        Gold("premise: She knew that the shop had closed. hypothesis: the shop had closed", "0"),
        Gold("premise: Did he say whether the lake froze? hypothesis: the lake froze", "2"),
    ],
    "record": [
        Gold(f"record query: People cheered when @placeholder left the ship. entities: Aurora, Port Ellen, Ida Berg passage: {FERRY}",
             "Ida Berg", group="0-0", official={"group": ""}),
        Gold(CUP_1, "Omar Haddad", ("Omar Haddad", "Haddad"), "1-1", official={"references": (), "group": ""}),
        Gold(CUP_1, "Haddad", ("Omar Haddad", "Haddad"), "1-1", official={"references": (), "group": ""}),
        Gold(CUP_2, "Luton", TOWN, "1-2", official={"references": (), "group": ""}),
        Gold(CUP_2, "Luton Town", TOWN, "1-2", official={"references": (), "group": ""}),
        Gold(CUP_2, "the Hatters", TOWN, "1-2", official={"references": (), "group": ""}),
    ],
    "nq": [
        Gold("question: what is the capital of norway context: < P > Oslo is the capital of Norway . < / P >",
             "Oslo", ("Oslo", "Oslo , Norway"), official={"references": ()}),
        Gold("question: where did françois brun open a café "
             "context: < P > François Brun ' s café opened in the U . S . in 1921 . < / P >", "the U . S ."),
    ],
    "hotpotqa": [
        Gold("question: Are Lake Inari and Kemi in the same country ? context: [ PAR ] [ TLE ] Lake Inari [ SEP ] "
             "Lake Inari lies in Finland . [ PAR ] [ TLE ] Kemi [ SEP ] Kemi is a town in Finland .", "yes"),
        Gold("question: Who founded Café Noir ? context: [ PAR ] [ TLE ] Café Noir [ SEP ] "
             "It was founded by Zoe\u0308 Ek ( 1870 – 1940 ) .", "Zoe\u0308 Ek"),
    ],
    "searchqa": [
        Gold("question: he sold honey and was the 1st mayor context: [ DOC ] [ TLE ] Quiz night [ PAR ] "
             "J . R . Holm , the 1st mayor , sold bees_wax & honey at 5 % off .",
             "J . R . Holm", ("J . R . Holm", "Holm"), official={"references": ()}),
        Gold("question: this bird weighs 9 . 5 g context: [ DOC ] [ TLE ] Birds [ PAR ] The wren weighs 9 . 5 g .", "wren"),
    ],
    "newsqa": [
        Gold("question: When did the ferry return ? context: ( Port News ) - - The ferry returned at 9 : 30 a . m . on Monday .",
             "9 : 30 a . m . on Monday", ("9 : 30 a . m . on Monday", "Monday"), official={"references": ()}),
        Gold("question: Who said it ' s cold ? context: ( Port News ) - - \" It ' s cold , \" the mayor said .", "the mayor"),
    ],
    "winogrande": [
        Gold(f"{LADDER} option1: shed", "0",
             official={"source": f"{LADDER} option1: ladder"}),
        Gold("sentence: Nora carried the bags for Pia because _ had hurt her arm. option0: Nora option1: Pia", "1",
             official={"source": "sentence: Nora carried the bags for Pia because _ had hurt her arm. option0: Nora option1: Nora"}),
    ],
    "yelp_polarity": [
        # the hub's text has \n and \" in two characters each
        Gold(r"sentence: Good soup, kind people.\n\nWe will be back!", "1"),
        Gold(r"sentence: The \"fresh\" fish was cold.", "0"),
    ],
    "scitail": [
        Gold("premise: Plants take in carbon dioxide and give off oxygen. hypothesis: Plants give off oxygen.", "0"),
        Gold("premise: Rain falls when drops in a cloud grow heavy. hypothesis: Clouds are lighter than air.", "1"),
    ],
    "paws": [
        Gold("sentence1: The road runs from Alby to Berga . sentence2: From Alby the road runs to Berga .", "1"),
        Gold("sentence1: The road runs from Alby to Berga . sentence2: The road runs from Berga to Alby .", "0"),
        Gold("sentence1: Her father , a baker , came from Lund . sentence2: From Lund came her father , a baker .", "1"),
    ],
    "mbpp": [
        Gold(DOUBLE, "\tdoubled = []\n\tfor value in values:\n\t\tdoubled.append(2 * value)\n\treturn doubled",
             (DOUBLE, DOUBLE_TEST, "double_all")),
        Gold(EVEN, "    def even(value):\n        return value % 2 == 0\n    return sum(map(even, values))",
             (EVEN, EVEN_TEST, "count_even")),
    ],
    "squad": [
        Gold("question: Who led the choir ? context: The choir was led by Clara O ' Neil from 1934 on .", "Clara O ' Neil",
             official={"target": "[ \" Clara O ' Neil \" ]"}),
        Gold("question: Where was salt stored ? context: Salt was stored in the old harbour until the flood .",
             "the old harbour", ("the old harbour", "harbour"),
             official={"target": "[ ' the old harbour ' , ' harbour ' ]", "references": ()}),
    ],
    "movie_reviews": [
        Gold("review: A patient, lovely film.", "1"),
        Gold("review: The plot forgets itself halfway.", "0"),
        Gold("review: Bright, quick and kind.", "1"),
        Gold("review: Loud and empty.", "0"),
    ],
}  # fmt: skip

WORDS = {
    "mnli": ("entailment", "neutral", "contradiction"),
    "qqp": ("not_duplicate", "duplicate"),
    "qnli": ("entailment", "not_entailment"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "rte": ("entailment", "not_entailment"),
    "cola": ("unacceptable", "acceptable"),
    "multirc": ("False", "True"),
    "boolq": ("False", "True"),
    "wic": ("False", "True"),
    "wsc": ("False", "True"),
    "cb": ("entailment", "contradiction", "neutral"),
    "winogrande": ("option0", "option1"),
    "yelp_polarity": ("negative", "positive"),
    "scitail": ("entailment", "neutral"),
    "paws": ("not_paraphrase", "paraphrase"),
    "movie_reviews": ("negative", "positive"),
}


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
    assert TASKS[name].labels(config_of(name)) == tuple(str(i) for i in range(len(WORDS[name])))
    assert TASKS[name].labels(config_of(name, targets="words")) == WORDS[name]


@pytest.mark.parametrize("name", [name for name in TASKS if name not in WORDS])
def test_free_text_has_no_labels_and_the_same_targets_with_words(name):
    assert TASKS[name].labels(config_of(name)) is None
    assert rendered(name, targets="words") == rendered(name)


def test_the_fixtures_programs_pass_their_own_tests():
    for row in fixture_rows("mbpp"):
        for code, fails in (
            (row["canonical_solution"], None),
            (indentation(row["canonical_solution"]) + "pass", AssertionError),
        ):
            scope: dict[str, Any] = {}
            exec(row["prompt"] + code + row["test"], scope)
            with pytest.raises(fails) if fails else contextlib.nullcontext():
                scope["check"](scope[row["entry_point"]])


# Switches -------------------------------------------------------------------------------------------------------------

QA = {"nq", "hotpotqa", "searchqa", "newsqa", "squad"}
READERS = {
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


def test_the_switches_are_read_by_these_tasks():
    assert {
        name: {task.name for task in TASKS.values() if name in task.switches} for name in task_specific_fields()
    } == READERS


@pytest.mark.parametrize("name", TASKS)
def test_a_switch_of_another_task_is_told_and_none(name):
    config = config_of(name)
    for switch, readers in READERS.items():
        if name in readers:
            assert getattr(config, switch) is not None
            continue
        assert getattr(config, switch) is None
        value = getattr(config_of(min(readers)), switch)
        with pytest.raises(UserError, match=f"--{switch} has no effect on task '{name}'"):
            config_of(name, **{switch: value})


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
def test_a_switch_changes_this_and_nothing_else(name, flags, number, changes):
    (plain, switched) = (rendered(name, **more)[number] for more in ({}, flags))
    changes = {"group": switched.group if name == "record" else plain.group, **changes}
    assert switched == dataclasses.replace(plain, **changes)


def test_the_official_protocol_can_be_mended_one_switch_at_a_time():
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


def test_squads_printed_list_is_padded():
    assert printed_answers({"answers": ["Denver Broncos"]}, config_of("squad"))[0] == "[ ' Denver Broncos ' ]"


@pytest.mark.parametrize(
    ("score", "paper", "official"),
    [
        (4.75, ("4.8", ("4.75",)), ("4.8", ("4.8",))),
        (0.3, ("0.4", ("0.3",)), ("0.3", ("0.3",))),
        (2.5, ("2.4", ("2.5",)), ("2.5", ("2.5",))),  # 12.5 fifths: to the even one
        (4.25, ("4.2", ("4.25",)), ("4.2", ("4.2",))),
        (5, ("5.0", ("5.0",)), ("5.0", ("5.0",))),
        (0, ("0.0", ("0.0",)), ("0.0", ("0.0",))),
    ],
)
def test_stsb_under_both_protocols(score, paper, official):
    row = {"sentence1": "a", "sentence2": "b", "label": score}
    for protocol, expected in (("paper", paper), ("official", official)):
        (example,) = rendered("stsb", [row], protocol=protocol)
        assert (example.target, example.references) == expected


def test_scitails_test_set_is_half_the_validation_set_or_the_hubs(tmp_path):
    (tmp_path / "scitail").mkdir()
    for split, count in (("train", 10), ("validation", 7), ("test", 4)):
        rows = "".join(json.dumps(fixture_rows("scitail")[i % 2]) + "\n" for i in range(count))
        (tmp_path / "scitail" / f"{split}.jsonl").write_text(rows)

    def splits(**flags):
        config = config_of("scitail", data_dir=str(tmp_path), **flags)
        return task_of(config).splits, load_data(task_of(config), config)

    names, data = splits(scitail_test="hub")
    assert names == ("train", "validation", "test") and tuple(data.sizes.values()) == (10, 7, 4)
    assert [e.id for e in data.test] == ["test:0", "test:1", "test:2", "test:3"]
    for protocol in ("paper", "official"):
        names, data = splits(protocol=protocol)
        assert names == ("train", "validation") and tuple(data.sizes.values()) == (10, 3, 4)
        assert {e.id for e in data.validation + data.test} == {f"validation:{i}" for i in range(7)}


MBPP_ORIGINAL = [  # the released MBPP's columns
    {
        "task_id": 1,
        "text": "Write a function to add up the squares of a list.",
        "code": "def square(x):\r\n  return x * x\r\ndef squares(values):\r\n  return sum(map(square, values))",
        "test_list": ["assert squares([1, 2]) == 5", "assert squares([]) == 0"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
    {
        "task_id": 2,
        "text": "Write a function to count the leaves of a tree.",
        "code": "class Node:\r\n  def __init__(self, *children):\r\n    self.children = children\r\n"
        "def leaves(node):\r\n  return sum(map(leaves, node.children)) or 1\r\ndef unused():\r\n  return 0",
        "test_list": ["assert leaves(root) == 2"],
        "test_setup_code": "root = Node(Node(),\r\n  Node())",
        "challenge_test_list": [],
    },
]


def test_mbpps_original_form_describes_the_task_and_shows_its_tests(tmp_path):
    squares, leaves = rendered("mbpp", MBPP_ORIGINAL, mbpp_prompt="original")
    assert squares.source == (
        "You are an expert Python programmer, and here is your task: Write a function to add up the squares of a list. "
        "Your code should pass these tests:\n\nassert squares([1, 2]) == 5\nassert squares([]) == 0\n[BEGIN]\n"
    )
    assert (
        squares.target
        == "def square(x):\n  return x * x\ndef squares(values):\n  return sum(map(square, values))\n[DONE]"
    )
    assert squares.references == ("", "assert squares([1, 2]) == 5\nassert squares([]) == 0", "squares")
    assert leaves.source.endswith("Your code should pass these tests:\n\nassert leaves(root) == 2\n[BEGIN]\n")
    assert leaves.references == ("", "root = Node(Node(),\n  Node())\nassert leaves(root) == 2", "leaves")

    (tmp_path / "mbpp").mkdir()
    (tmp_path / "mbpp" / "google_mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MBPP_ORIGINAL))
    config = config_of("mbpp", mbpp_prompt="original", data_dir=str(tmp_path))
    data = load_data(task_of(config), config)
    assert [[e.source for e in part] for part in (data.train, data.validation, data.test)] == [
        [squares.source],
        [],
        [leaves.source],
    ]


def test_llama3s_samples_are_freed_of_lines_and_the_others_end_at_return():
    sample = "  // adds one\n  x += 1\n  return x\n  x = 0"
    assert clean_completion(sample, "def f(x):\n    '''Adds.'''\n", config_of("mbpp").mbpp_cleanup) == (
        "  // adds one\n  x += 1\n  return x"
    )
    llama = config_of("mbpp", model="llama3-8b")
    assert (
        clean_completion(sample, "def f(x):\n    '''Adds.'''\n", llama.mbpp_cleanup)
        == "    x += 1\n    return x\n    x = 0"
    )
    assert config_of("mbpp", model="llama3-8b", mbpp_cleanup="return").mbpp_cleanup == "return"


# Splits ---------------------------------------------------------------------------------------------------------------

GLUE, SUPERGLUE = "nyu-mll/glue", "aps/super_glue"
HUB: dict[str, tuple[str, str | None, dict[str, int]]] = {  # id, config and rows of the splits that are read
    "mnli": (GLUE, "mnli", {"train": 392_702, "validation_mismatched": 9_832, "validation_matched": 9_815}),
    "qqp": (GLUE, "qqp", {"train": 363_846, "validation": 40_430}),
    "qnli": (GLUE, "qnli", {"train": 104_743, "validation": 5_463}),
    "sst2": (GLUE, "sst2", {"train": 67_349, "validation": 872}),
    "stsb": (GLUE, "stsb", {"train": 5_749, "validation": 1_500}),
    "mrpc": (GLUE, "mrpc", {"train": 3_668, "validation": 408}),
    "rte": (GLUE, "rte", {"train": 2_490, "validation": 277}),
    "cola": (GLUE, "cola", {"train": 8_551, "validation": 1_043}),
    "multirc": (SUPERGLUE, "multirc", {"train": 27_243, "validation": 4_848}),
    "boolq": (SUPERGLUE, "boolq", {"train": 9_427, "validation": 3_270}),
    "wic": (SUPERGLUE, "wic", {"train": 5_428, "validation": 638}),
    "wsc": (SUPERGLUE, "wsc.fixed", {"train": 554, "validation": 104}),
    "cb": (SUPERGLUE, "cb", {"train": 250, "validation": 56}),
    "record": (SUPERGLUE, "record", {"train": 100_730, "validation": 10_000}),
    "nq": ("lucadiliello/naturalquestionsshortqa", None, {"train": 104_071, "validation": 12_836}),
    "hotpotqa": ("lucadiliello/hotpotqa", None, {"train": 72_928, "validation": 5_901}),
    "searchqa": ("lucadiliello/searchqa", None, {"train": 117_384, "validation": 16_980}),
    "newsqa": ("lucadiliello/newsqa", None, {"train": 74_160, "validation": 4_212}),
    "winogrande": ("allenai/winogrande", "winogrande_xl", {"train": 40_398, "validation": 1_267}),
    "yelp_polarity": ("fancyzhx/yelp_polarity", "plain_text", {"train": 560_000, "test": 38_000}),
    "scitail": ("allenai/scitail", "snli_format", {"train": 23_596, "validation": 1_304}),
    "paws": ("google-research-datasets/paws", "labeled_final", {"train": 49_401, "validation": 8_000, "test": 8_000}),
    "mbpp": ("mxeval/mbxp", "python", {"mbxp_mbpp_release_v1": 974}),
}
CARVED = {"qqp", "qnli", "sst2", "record", "nq", "hotpotqa", "searchqa", "newsqa", "winogrande", "yelp_polarity"}


def seed_42(count: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(42)).tolist()


@pytest.mark.parametrize("name", HUB)
def test_the_hubs_counts_give_the_papers_sizes(name):
    task, counts = TASKS[name], HUB[name][2]
    rows = {split: [(split, i) for i in range(count)] for split, count in counts.items()}
    train, validation, test = split_rows(task, rows, 42)
    assert len({*train, *validation, *test}) == len(train) + len(validation) + len(test)  # disjoint
    if name != "record":
        assert (len(train), len(validation), len(test)) == task.sizes
    splits = tuple(counts)
    if name in CARVED:
        order = seed_42(counts["train"])
        assert validation == [("train", i) for i in order[:1000]]
        assert train == [("train", i) for i in order[1000 : 101_000 if name == "yelp_polarity" else None]]
        assert test == rows[splits[1]]
    elif name == "mbpp":
        assert (train, validation, test) == (rows[splits[0]][:487], [], rows[splits[0]][487:])
    elif name in ("mnli", "paws"):
        assert (train, validation, test) == tuple(rows[split] for split in splits)
    else:
        order = seed_42(counts["validation"])
        half = len(order) // 2
        assert train == rows["train"]
        assert (validation, test) == tuple([("validation", i) for i in part] for part in (order[:half], order[half:]))


def test_record_is_carved_in_queries_and_then_a_row_is_made_for_each_answer():
    """The paper's sizes fit queries whose 1,000 drawn ones have 370 answers more than one each, and so on."""
    order = seed_42(100_730)
    double = {*order[:370], *order[1000 : 1000 + 137_484 - 99_730]}
    rows = {
        "train": [{"answers": ["a", "b"] if i in double else ["a"]} for i in range(100_730)],
        "validation": [{"answers": ["a", "b"] if i < 5_176 else ["a"]} for i in range(10_000)],
    }
    parts = split_rows(TASKS["record"], rows, 42)
    assert tuple(sum(len(list(TASKS["record"].expand(row))) for row in part) for part in parts) == TASKS["record"].sizes
    assert TASKS["record"].sizes == (137_484, 1_370, 15_176)


def test_too_few_rows_to_carve_are_told():
    with pytest.raises(
        UserError, match="task 'nq' sets 1,000 training rows aside for validation, but only 1000 are there"
    ):
        split_rows(TASKS["nq"], {"train": list(range(1000)), "validation": [0]}, 42)


@pytest.mark.parametrize("name", HUB)
def test_the_hub_is_asked_for_these_splits(name, monkeypatch):
    """Ids without loading scripts, as `datasets` 4 wants them."""
    import datasets

    asked = []

    class Loaded:
        def to_list(self):
            return []

    def load_dataset(*args, **kwargs):
        asked.append((*args, kwargs.get("data_files"), kwargs["split"]))
        return Loaded()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    config = config_of(name)
    for split in task_of(config).splits:
        load_rows(task_of(config), split, config)
    hub, subset, counts = HUB[name]
    if name == "mbpp":  # the hub's mxeval/mbxp is a loading script; its file lies on GitHub
        ((form, file, split),) = asked
        assert (form, split) == ("json", "train") and re.fullmatch(
            r"https://[^ ]+/mxeval/.*/mbpp_release_v1\.jsonl", file
        )
        original = config_of(name, mbpp_prompt="original")
        load_rows(task_of(original), "google_mbpp", original)
        # 1-10, 11-510, 511-600 and 601-974 are the task ids of these four
        assert asked[1:] == [("google-research-datasets/mbpp", "full", None, "prompt+test+validation+train")]
    else:
        assert asked == [(hub, subset, None, split) for split in counts]


@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "rte", "cb", "wsc", "wic", "multirc", "mbpp"])
def test_sizes_are_the_papers_and_splits_are_disjoint(name, shared):
    config = config_of(name, data_dir=str(shared / "data"))
    data = load_data(task_of(config), config)
    assert tuple(data.sizes.values()) == TASKS[name].sizes
    ids = [example.id for part in (data.train, data.validation, data.test) for example in part]
    assert len(set(ids)) == len(ids) == sum(TASKS[name].sizes)
    assert all(example.source and example.target for example in data.train)


def test_the_split_follows_the_released_codes_permutation(shared):
    """First half of torch.randperm(277, seed 42) validates: rows read off that permutation."""
    data = load_data(TASKS["rte"], resolve({"task": "rte", "data_dir": str(shared / "data")}))
    assert [e.id for e in data.validation[:4]] == [
        "validation:207",
        "validation:84",
        "validation:253",
        "validation:243",
    ]
    other = load_data(TASKS["rte"], resolve({"task": "rte", "data_dir": str(shared / "data"), "split_seed": 1}))
    assert other.fingerprint != data.fingerprint


# All real rows --------------------------------------------------------------------------------------------------------

FREE_TEXT_LEN = 20
LONG = {
    "newsqa": (0.051, 0.051),
    "squad": (0.032, 0.078),
}  # share of targets that do not fit, under paper and official; none elsewhere


@functools.cache
def tokenizer_in(folder):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def t5(shared):
    return tokenizer_in(shared / "t5-tokenizer")


def codec(tokenizer, task, config, **fields) -> Codec:
    """The Codec of an encoder-decoder model's run."""
    common = {
        "encoder_decoder": True,
        "prompt_ids": (),
        "max_source_len": config.max_source_len,
        "max_target_len": FREE_TEXT_LEN,
    }
    made = Codec(tokenizer, **{**common, "cue": task.cue, "cut_references": bool(config.cut_references), **fields})
    if labels := task.labels:
        made = dataclasses.replace(made, max_target_len=max(len(made.target_ids(label)) for label in labels))
    return made


@pytest.mark.parametrize("protocol", ["paper", "official"])
@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("hotpotqa", "searchqa", "movie_reviews")])
def test_all_real_rows_pass(name, protocol, shared, t5):
    config = config_of(name, protocol=protocol, data_dir=str(shared / "data"))
    task = task_of(config)
    if name == "record":  # 64 rows are no 1,000 to carve
        parts = []
        for split in task.splits:
            rows, _, where = load_rows(task, split, config)
            parts.append(
                [example for examples in render_rows(task, split, rows, where, config) for example in examples]
            )
    else:
        data = load_data(task, config)
        parts = [data.train, data.validation, data.test]
    examples = [example for part in parts for example in part]
    assert all(e.source.strip() and e.target.strip() and e.references and e.group for e in examples)
    assert len({e.id for e in examples}) == len(examples)
    if name == "mbpp":  # not for encoder-decoder models
        assert all(e.references[0] == e.source and re.search(rf"def {e.references[2]}\b", e.source) for e in examples)
        return
    assert all(all(e.references) for e in examples)

    coder, targets = codec(t5, task, config), Counter(e.target for e in examples)
    if labels := task.labels:
        assert set(targets) <= set(labels)
        words = codec(t5, task, config_of(name, targets="words"))
        for limited, strings in ((coder, labels), (words, task.words)):
            assert [limited.text(limited.target_ids(label)) for label in strings] == list(strings)  # none is cut
    lengths = {target: len(t5(target).input_ids) for target in targets}
    long = sum(count for target, count in targets.items() if lengths[target] > FREE_TEXT_LEN)
    assert long / len(examples) == pytest.approx(LONG.get(name, (0, 0))[protocol == "official"], abs=0.002)
    for part in parts:
        for example in coder.encode(part[:300]):
            assert 1 < len(example.source_ids) <= task.max_source_len
            assert 1 < len(example.target_ids) <= coder.max_target_len and example.target_ids[-1] == t5.eos_token_id
            assert all(example.references)


def test_the_original_programs_are_called_as_the_other_form_calls_them(shared):
    config = config_of("mbpp", mbpp_prompt="original", data_dir=str(shared / "data"))
    originals, _, _ = load_rows(task_of(config), "google_mbpp", config)
    others, _, _ = load_rows(TASKS["mbpp"], "mbxp_mbpp_release_v1", config)
    examples = rendered("mbpp", originals, mbpp_prompt="original")
    assert [e.references[2] for e in examples] == [row["entry_point"] for row in others]
    assert all(ast.parse(e.target.removesuffix("[DONE]")) and ast.parse(e.references[1]) for e in examples)


def test_references_are_cut_as_predictions_are(t5):
    words = ("one two three four five six seven eight nine " * 3).split()
    answer, kept = " ".join(words), " ".join(words[:19])  # 20 tokens with EOS
    assert len(t5(answer).input_ids) == 28  # a token a word
    for name, flags in (("nq", {}), ("squad", {"squad_target": "first"}), ("record", {})):
        row = {**fixture_rows(name)[0], "answers": [answer, "one"]}
        for protocol, references in (("paper", (answer, "one")), ("official", (kept,))):
            config = config_of(name, protocol=protocol, **flags)
            encoded = codec(t5, task_of(config), config).encode(rendered(name, [row], protocol=protocol, **flags))[0]
            assert encoded.references == references
            assert len(encoded.target_ids) == 20 and t5.decode(encoded.target_ids, skip_special_tokens=True) == kept


def test_a_run_cuts_references_where_its_config_says_so(make_config):
    for protocol, expected in (("paper", False), ("official", True)):
        assert open_session(make_config("t5", task="nq", protocol=protocol)).codec.cut_references is expected
    assert open_session(make_config("t5", task="rte", protocol="official")).codec.cut_references is False


def test_t5_does_not_see_the_blanks_that_the_released_padding_leaves(t5):
    for plain in (
        "U.S.",
        "(1870–1940)",
        "François, 5%!",
        "[PAR] [TLE] Kemi",
        '"It\'s cold," she said.',
        "a\t b \n",
        "no punctuation",
    ):
        padded = pad_punctuation(plain)
        released = re.sub(r"\s+", " ", regex.sub(r"([^_\s\p{N}\p{L}\p{M}])", r" \1 ", plain))
        assert released.strip() == padded
        for other in (released, f" {padded} ", padded.replace(" ", "  "), f"{padded}\n"):
            assert t5(other).input_ids == t5(padded).input_ids
    assert t5("U . S .").input_ids != t5("U.S.").input_ids


# Text helpers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plain", "padded"),
    [
        ("U.S.", "U . S ."),
        ("François", "François"),
        ("Zoe\u0308", "Zoe\u0308"),  # a combining accent
        ("bees_wax", "bees_wax"),
        ("1,234 of ½", "1 , 234 of ½"),
        ("a\tb\n\nc ", "a b c"),
        ("«Привет», 東京。", "« Привет » , 東京 。"),
        ("...", ". . ."),
        ("", ""),
    ],
)
def test_punctuation_is_padded_and_letters_digits_and_accents_are_not(plain, padded):
    assert pad_punctuation(plain) == padded


@pytest.mark.parametrize(
    ("plain", "span", "index", "marked"),
    [
        ("I paid C++ (v2) today.", "C++ (v2)", 2, "I paid * C++ (v2) * today."),
        ("axb ends here", "a.b", 0, "axb ends here"),
        ("the cat saw the cat", "the cat", 3, "the cat saw * the cat *"),
        ("the cat", "the", 0, "* the * cat"),
        ("the cat", "the", 1, "the cat"),
        ("the cat", "cat", 7, "the cat"),
        ("a \\1 b", "\\1", 1, "a * \\1 * b"),
        ("it's Ann's", "Ann", 1, "it's * Ann *'s"),
    ],
)
def test_a_span_is_marked_at_its_word_and_nowhere_else(plain, span, index, marked):
    assert mark_span(plain, span, index, "*") == marked


def test_the_function_under_test_is_the_last_one_that_the_tests_call():
    program = "def a():\n  pass\ndef b():\n  pass\ndef c():\n  pass\nx = 1"
    assert tested_function(program, "assert b() == 1\nassert set(a()) == {1}") == "b"
    assert tested_function(program, "assert not a()") == "a"
    for tests in ("assert d() == 1", "assert a == 1", "", "assert x.c()"):
        with pytest.raises(ValueError, match="the tests call no function of the program"):
            tested_function(program, tests)


# Names ----------------------------------------------------------------------------------------------------------------


def test_groups_are_the_papers():
    glue = ("mnli", "qqp", "qnli", "sst2", "stsb", "mrpc", "rte", "cola")
    superglue = ("multirc", "boolq", "wic", "wsc", "cb", "record")
    mrqa, other = ("nq", "hotpotqa", "searchqa", "newsqa"), ("winogrande", "yelp_polarity", "scitail", "paws")
    for group, names in (
        ("glue", glue),
        ("superglue", superglue),
        ("mrqa", mrqa),
        ("other", other),
        ("code", ("mbpp",)),
    ):
        assert task_names(f"@{group}") == names
    assert set(task_names("@all")) == {*glue, *superglue, *mrqa, *other, "mbpp"} and len(task_names("@all")) == 23
    assert set(task_names("@large")) == {"mnli", "qqp", "qnli", "yelp_polarity", "record", *mrqa}
    assert all((TASKS[name].sizes[0] > 70_000) == (name in GROUPS["large"]) for name in task_names("@all"))
    assert task_names("rte") == ("rte",)


@pytest.mark.parametrize(
    ("look_up", "name", "message"),
    [
        (find_task, "rt", "unknown task 'rt'; did you mean 'rte'?"),
        (find_task, "superglue", "unknown task 'superglue'; did you mean '@superglue'?"),
        (task_names, "@gleu", "unknown task group '@gleu'; did you mean '@glue'?"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(look_up, name, message):
    with pytest.raises(UserError) as caught:
        look_up(name)
    assert str(caught.value) == message


def test_a_task_is_found_by_its_name_and_a_group_of_no_likeness_lists_all():
    assert find_task("wsc") is TASKS["wsc"]
    with pytest.raises(
        UserError,
        match=r"unknown task group '@zzzzzzzz'; known: @all, @code, @glue, @large, @mrqa, @other, @superglue$",
    ):
        task_names("@zzzzzzzz")


# Bad rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rte", {"sentence1": None}, r"column 'sentence1' holds None where text is needed"),
        ("rte", {"sentence2": ["a"]}, r"column 'sentence2' holds \['a'\] where text is needed"),
        ("rte", {"sentence2": {"a": 1}}, r"column 'sentence2' holds \{'a': 1\} where text is needed"),
        ("rte", {"label": "1"}, r"label '1' is not one of 0\.\.1"),
        ("rte", {"label": [1]}, r"label \[1\] is not one of 0\.\.1"),
        ("rte", {"label": -1}, r"label -1 is not one of 0\.\.1"),
        ("rte", {"label": True}, r"label True is not one of 0\.\.1"),
        ("mnli", {"label": 3}, r"label 3 is not one of 0\.\.2"),
        ("winogrande", {"answer": 1}, r"answer 1 is not one of '1', '2'"),
        ("winogrande", {"answer": ""}, r"answer '' is not one of '1', '2'"),
        ("scitail", {"gold_label": 0}, r"gold_label 0 is not one of 'entailment', 'neutral'"),
        ("scitail", {"gold_label": "contradiction"}, r"gold_label 'contradiction' is not one of"),
        ("stsb", {"label": None}, r".+"),
        ("stsb", {"label": "high"}, r".*'high'"),
        ("stsb", {"label": float("nan")}, r"label nan is no similarity"),
        ("nq", {"answers": []}, r"column 'answers' holds \[\] where a list of texts is needed"),
        ("nq", {"answers": "Oslo"}, r"column 'answers' holds 'Oslo' where a list of texts is needed"),
        ("nq", {"answers": [1921]}, r"column 'answers' holds \[1921\] where a list of texts is needed"),
        ("nq", {"answers": None}, r"column 'answers' holds None where a list of texts is needed"),
        ("nq", {"context": None}, r"column 'context' holds None where text is needed"),
        ("record", {"answers": []}, r"column 'answers' holds \[\] where a list of texts is needed"),
        ("record", {"entities": "Ida"}, r"column 'entities' holds 'Ida' where a list of texts is needed"),
        ("record", {"idx": 7}, r".+"),
        ("multirc", {"answer": None}, r"column 'answer' holds None where text is needed"),
        ("multirc", {"idx": None}, r".+"),
        ("wsc", {"span1_text": None}, r"column 'span1_text' holds None where text is needed"),
        ("wsc", {"span2_index": None}, r".+"),
        ("mbpp", {"canonical_solution": None}, r"column 'canonical_solution' holds None where text is needed"),
    ],
)
def test_a_row_that_does_not_fit_is_one_line_naming_it(name, changes, message, tmp_path):
    (tmp_path / name).mkdir()
    for split in TASKS[name].splits:
        rows = [fixture_rows(name)[0]] * 3
        rows[1] = {**rows[1], **changes} if split == TASKS[name].splits[0] else rows[1]
        (tmp_path / name / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    config = config_of(name, data_dir=str(tmp_path))
    with pytest.raises(UserError, match=rf"{TASKS[name].splits[0]}\.jsonl, row 1: {message}") as caught:
        load_data(task_of(config), config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": "def f(:"}, r".*invalid syntax"),
        ({"test_list": ["assert other() == 1"]}, r"the tests call no function of the program"),
        ({"test_list": []}, r"column 'test_list' holds \[\]"),
    ],
)
def test_an_original_program_that_cannot_be_tested_is_told(changes, message):
    with pytest.raises(UserError, match=rf"fixture, row 1: {message}"):
        rendered("mbpp", [MBPP_ORIGINAL[0], {**MBPP_ORIGINAL[1], **changes}], mbpp_prompt="original")


def test_a_row_may_hold_every_line_separator_but_the_newline(tmp_path):
    """JSON allows them raw; hub texts hold them."""
    (tmp_path / "rte").mkdir()
    row = {"sentence1": "one\u2028two\x85three", "sentence2": "b", "label": 0}
    (tmp_path / "rte" / "train.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_rows(TASKS["rte"], "train", resolve({"task": "rte", "data_dir": str(tmp_path)}))[0] == [row]


def test_a_label_outside_the_list_and_a_missing_column_name_the_row(tmp_path):
    folder = tmp_path / "rte"
    folder.mkdir()
    good = '{"sentence1": "a", "sentence2": "b", "label": 0}\n'
    (folder / "validation.jsonl").write_text(good * 4)
    config = resolve({"task": "rte", "data_dir": str(tmp_path)})
    for bad, message in (
        ('{"sentence1": "a", "sentence2": "b", "label": 2}', r"train\.jsonl, row 1: label 2 is not one of 0\.\.1"),
        ('{"sentence1": "a", "sentence2": "b", "label": null}', r"row 1: label None"),
        ('{"sentence1": "a", "label": 0}', r"row 1: task 'rte' needs the column 'sentence2'; found sentence1, label"),
        ("{oops", r"train\.jsonl, line 2: not JSON"),
        ("[1]", r"row 1: not a row but \[1\]"),
    ):
        (folder / "train.jsonl").write_text(good + bad + "\n")
        with pytest.raises(UserError, match=message):
            load_data(TASKS["rte"], config)
    (folder / "train.jsonl").write_text("")
    with pytest.raises(UserError, match=r"train\.jsonl: no rows"):
        load_data(TASKS["rte"], config)
    (folder / "train.parquet").write_bytes(b"PAR1 not a parquet file")
    with pytest.raises(UserError, match=r"cannot read .*train\.parquet"):
        load_data(TASKS["rte"], config)


def test_a_new_task_is_one_row(tmp_path, monkeypatch, make_config):
    """The README's promise: one Task row, and the one command trains on it."""
    from adept.tasks.task import Task
    from adept.training.loop import run

    row = Task(
        "jokes",
        ("someone/jokes", None),
        ("joke",),
        ("dull", "funny"),
        split=Split.NATIVE,
        splits=("train", "validation", "test"),
    )
    monkeypatch.setitem(TASKS, "jokes", row)
    (tmp_path / "jokes").mkdir()
    for split in row.splits:
        lines = [json.dumps({"joke": f"knock {i}", "label": i % 2}) for i in range(12)]
        (tmp_path / "jokes" / f"{split}.jsonl").write_text("\n".join(lines))
    record = run(make_config("t5", "adept", task="jokes", data_dir=str(tmp_path)))
    assert record["sizes"] == {"train": 12, "validation": 12, "test": 12}
    assert dataclasses.asdict(row)["name"] in record["run_id"]
