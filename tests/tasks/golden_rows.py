"""What every fixture row must become, under both protocols.

GOLDEN is written from the protocol's description (Section 4.1, Appendix C and D, the released code's preprocessing),
not from this code.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Gold:
    source: str
    target: str
    references: tuple[str, ...] = ()  # none: the target alone
    group: str = ""  # none: the example is its own question
    official: dict[str, Any] = field(default_factory=dict)  # what --protocol official changes

    def under(self, protocol: str) -> Gold:
        return dataclasses.replace(self, **self.official) if protocol == "official" else self


LADDER = "sentence: The ladder did not fit into the shed because the _ was too long. option0: ladder"
# the last <br> is a blank
GARDEN = "Sent 1: Anna planted beans in May. Sent 2: Her brother Tom watered them every evening. "
FERRY = (
    "The ferry Aurora reached Port Ellen on Monday. Captain Ida Berg thanked her crew. Aurora arrives a day early. "
    "Ida Berg thanks the crew"
)
CUP = '"We won," said Omar Haddad of Luton. "At last!" Luton beat Derby. Will Haddad stay? The final is on Sunday'
CUP_1 = (
    f"record query: For @placeholder it was the first cup. entities: Omar Haddad, Haddad, Luton, Derby passage: {CUP}"
)
CUP_2 = (
    "record query: The fans of @placeholder sang. "
    f"entities: Omar Haddad, Luton, Luton Town, the Hatters, Derby passage: {CUP}"
)
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
DOUBLE_TEST = (
    f"{CHECK}    assert candidate([1, 2]) == [2, 4]\n"
    "    assert candidate([]) == []\n    assert candidate([-3]) == [-6]\n\n"
)
EVEN_TEST = (
    f"{CHECK}    assert candidate([1, 2, 4]) == 2\n    assert candidate([]) == 0\n    assert candidate([7]) == 0\n\n"
)

GOLDEN: dict[str, list[Gold]] = {
    "mnli": [
        Gold(
            "premise: The library opens at nine on weekdays. hypothesis: The library is open at ten on a Tuesday.", "0"
        ),
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
        Gold(
            "sentence1: A man is playing a flute. sentence2: A man plays the flute.",
            "4.8",
            ("4.75",),
            official={"references": ("4.8",)},
        ),
        Gold("sentence1: Two dogs run on a beach. sentence2: A cat sleeps on a sofa.", "0.4"),
        Gold(
            "sentence1: A woman is slicing bread. sentence2: Someone is cutting bread.",
            "4.0",
            ("3.9",),
            official={"target": "3.9"},
        ),
    ],
    "mrpc": [
        Gold(
            "sentence1: The council approved the plan on Monday . "
            "sentence2: On Monday , the plan was approved by the council .",
            "1",
        ),
        Gold("sentence1: Shares rose 3 % in early trading . sentence2: Shares fell 3 % in early trading .", "0"),
        Gold("sentence1: He was born in Oslo in 1950 . sentence2: He was born in 1950 , in Oslo .", "1"),
    ],
    "rte": [
        Gold(
            "sentence1: The ferry to Hallig leaves at noon and takes an hour. sentence2: The ferry takes an hour.", "0"
        ),
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
        Gold(
            "question: Did all pots break? answer: Yes paragraph: The kiln cooled overnight; 3 < 5 pots broke.",
            "0",
            group="1-0",
        ),
    ],
    "boolq": [
        Gold(
            "question: is the moon smaller than the earth "
            "passage: The Moon's diameter is about a quarter of the Earth's.",
            "1",
        ),
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
        Gold(
            "record query: People cheered when @placeholder left the ship. "
            f"entities: Aurora, Port Ellen, Ida Berg passage: {FERRY}",
            "Ida Berg",
            group="0-0",
            official={"group": ""},
        ),
        Gold(CUP_1, "Omar Haddad", ("Omar Haddad", "Haddad"), "1-1", official={"references": (), "group": ""}),
        Gold(CUP_1, "Haddad", ("Omar Haddad", "Haddad"), "1-1", official={"references": (), "group": ""}),
        Gold(CUP_2, "Luton", TOWN, "1-2", official={"references": (), "group": ""}),
        Gold(CUP_2, "Luton Town", TOWN, "1-2", official={"references": (), "group": ""}),
        Gold(CUP_2, "the Hatters", TOWN, "1-2", official={"references": (), "group": ""}),
    ],
    "nq": [
        Gold(
            "question: what is the capital of norway context: < P > Oslo is the capital of Norway . < / P >",
            "Oslo",
            ("Oslo", "Oslo , Norway"),
            official={"references": ()},
        ),
        Gold(
            "question: where did françois brun open a café "
            "context: < P > François Brun ' s café opened in the U . S . in 1921 . < / P >",
            "the U . S .",
        ),
    ],
    "hotpotqa": [
        Gold(
            "question: Are Lake Inari and Kemi in the same country ? context: [ PAR ] [ TLE ] Lake Inari [ SEP ] "
            "Lake Inari lies in Finland . [ PAR ] [ TLE ] Kemi [ SEP ] Kemi is a town in Finland .",
            "yes",
        ),
        Gold(
            "question: Who founded Café Noir ? context: [ PAR ] [ TLE ] Café Noir [ SEP ] "
            "It was founded by Zoe\u0308 Ek ( 1870 – 1940 ) .",
            "Zoe\u0308 Ek",
        ),
    ],
    "searchqa": [
        Gold(
            "question: he sold honey and was the 1st mayor context: [ DOC ] [ TLE ] Quiz night [ PAR ] "
            "J . R . Holm , the 1st mayor , sold bees_wax & honey at 5 % off .",
            "J . R . Holm",
            ("J . R . Holm", "Holm"),
            official={"references": ()},
        ),
        Gold(
            "question: this bird weighs 9 . 5 g context: [ DOC ] [ TLE ] Birds [ PAR ] The wren weighs 9 . 5 g .",
            "wren",
        ),
    ],
    "newsqa": [
        Gold(
            "question: When did the ferry return ? "
            "context: ( Port News ) - - The ferry returned at 9 : 30 a . m . on Monday .",
            "9 : 30 a . m . on Monday",
            ("9 : 30 a . m . on Monday", "Monday"),
            official={"references": ()},
        ),
        Gold(
            "question: Who said it ' s cold ? context: ( Port News ) - - \" It ' s cold , \" the mayor said .",
            "the mayor",
        ),
    ],
    "winogrande": [
        Gold(f"{LADDER} option1: shed", "0", official={"source": f"{LADDER} option1: ladder"}),
        Gold(
            "sentence: Nora carried the bags for Pia because _ had hurt her arm. option0: Nora option1: Pia",
            "1",
            official={
                "source": "sentence: Nora carried the bags for Pia because _ had hurt her arm. "
                "option0: Nora option1: Nora"
            },
        ),
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
        Gold(
            "sentence1: Her father , a baker , came from Lund . sentence2: From Lund came her father , a baker .", "1"
        ),
    ],
    "mbpp": [
        Gold(
            DOUBLE,
            "\tdoubled = []\n\tfor value in values:\n\t\tdoubled.append(2 * value)\n\treturn doubled",
            (DOUBLE, DOUBLE_TEST, "double_all"),
        ),
        Gold(
            EVEN,
            "    def even(value):\n        return value % 2 == 0\n    return sum(map(even, values))",
            (EVEN, EVEN_TEST, "count_even"),
        ),
    ],
    "squad": [
        Gold(
            "question: Who led the choir ? context: The choir was led by Clara O ' Neil from 1934 on .",
            "Clara O ' Neil",
            official={"target": '[ " Clara O \' Neil " ]'},
        ),
        Gold(
            "question: Where was salt stored ? context: Salt was stored in the old harbour until the flood .",
            "the old harbour",
            ("the old harbour", "harbour"),
            official={"target": "[ ' the old harbour ' , ' harbour ' ]", "references": ()},
        ),
    ],
    "gsm8k": [
        Gold(
            "question: A baker puts 6 rolls on each tray and fills 7 trays. "
            "She sells 30 rolls. How many rolls are left?",
            "The baker makes 6 * 7 = <<6*7=42>>42 rolls.\n"
            "After the sale 42 - 30 = <<42-30=12>>12 rolls are left.\n#### 12",
        ),
        Gold(
            "question: A ticket costs 12 dollars. A class of 95 pupils goes to the theatre with 5 teachers. "
            "How much do all tickets cost?",
            "95 + 5 = <<95+5=100>>100 people go.\nTheir tickets cost 100 * 12 = $<<100*12=1200>>1,200.\n#### 1,200",
        ),
        Gold(
            "question: Ada reads 20 pages on Monday and half as many on Tuesday. "
            "How many pages does she read on both days?",
            "On Tuesday she reads 20 / 2 = <<20/2=10>>10 pages.\n"
            "Together that is 20 + 10 = <<20+10=30>>30 pages.\n#### 30",
        ),
        Gold(
            "question: A thermometer shows 2 degrees in the evening. "
            "During the night the temperature falls by 5 degrees. What does it show then?",
            "It shows 2 - 5 = <<2-5=-3>>-3.\n#### -3",
        ),
    ],
    "movie_reviews": [
        Gold("review: A patient, lovely film.", "1"),
        Gold("review: The plot forgets itself halfway.", "0"),
        Gold("review: Bright, quick and kind.", "1"),
        Gold("review: Loud and empty.", "0"),
    ],
}

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
