"""results/published/tableN.csv: the paper's numbers, one a line. Complete, consistent with one another and with the
formulas.

A line is method (as printed), row and column (keys of our table; row is empty for a quoted baseline), value, std,
params (#Para as printed) and a note (source, doubts). An empty value is one that nobody can read any more.
"""

import csv
import math
from collections import Counter
from decimal import Decimal

import pytest
from conftest import ROOT

from adept.methods import METHODS
from adept.models.families import ALIASES
from adept.tasks import GROUPS, TASKS

FOLDER = ROOT / "results" / "published"
HEADER = ["method", "row", "column", "value", "std", "params", "note"]
GROUP_OF = {
    "GLUE": "glue",
    "SuperGLUE": "superglue",
    "MRQA": "mrqa",
    "Others": "other",
}  # title of a mean column -> group of tasks

GLUE = "mnli, qqp, qnli, sst2, stsb, mrpc, rte, cola, GLUE"
MRQA = "nq, hotpotqa, searchqa, newsqa"
IN_MODEL = "full, adapter, adapterdrop, bitfit, lora, lst"
CODE = ", ".join(
    f"{model} {method}" for model in ("codegen-350m", "llama3-8b") for method in ("lora", "pt", "dept", "adept")
)
SHOTS = ", ".join(f"{task} {shots}" for task in ("boolq", "cb", "scitail") for shots in (4, 16, 32))

LAYOUT = {  # table: (number of values, keys of our rows, keys of our columns), in the paper's order
    1: (12, "dept 0, dept 50, dept 100, dept 150, dept 200, adept", "rte, boolq"),
    2: (12, "embeddings, dept, adept", "rte mean, rte variance, boolq mean, boolq variance"),
    3: (264, f"{IN_MODEL}, pt, dept, adept, spot", f"{GLUE}, multirc, boolq, wic, wsc, cb, SuperGLUE"),
    4: (
        90,
        "full, adapter, bitfit, lora, pt, spot, dept, adept",
        f"{MRQA}, MRQA, winogrande, yelp_polarity, scitail, paws, Others",
    ),
    5: (28, "lora, pt, dept, adept", f"{MRQA}, mnli, record, mean"),
    6: (24, "lora, pt, dept, adept", f"{MRQA}, record, mean"),
    7: (8, CODE, "mbpp"),
    8: (6, "pt, dept, adept", "GLUE, sst2 samples/s"),
    9: (8, "lora, pt, dept, adept", "nq hours, hotpotqa hours"),
    10: (2, "pt_embedding, adept", "rte"),
    11: (4, "dept, adept", "with offsets, without offsets"),
    12: (4, "adept", "5, 10, 20, 30"),
    13: (6, "adept", "20, 40, 50, 60, 70, 80"),
    14: (2, "adept 0, adept 60", "rte"),
    15: (90, SHOTS, "full, adapter, pt, ST, HF, ia3, ATP, MPT, dept, adept"),
}
PLAIN_WORDS = {"embeddings", "mean", "variance", "samples/s", "hours", "with", "without", "offsets"}
QUOTED_METHODS = {"ST", "HF", "ATP", "MPT"}  # Table 15's columns that no method of ours stands for


def read(table: int) -> list[dict[str, str]]:
    """The lines of one table. Raises ValueError for a line with too few or too many fields."""
    with open(FOLDER / f"table{table}.csv", encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == HEADER
    return [dict(zip(HEADER, line, strict=True)) for line in lines]


def values(table: int) -> dict[tuple[str, str], float]:
    """{(row, column): value} of the lines that have a key and a value."""
    return {
        (line["row"], line["column"]): float(line["value"]) for line in read(table) if line["row"] and line["value"]
    }


# Form -----------------------------------------------------------------------------------------------------------------


def test_there_are_the_15_tables():
    assert {path.name for path in FOLDER.iterdir()} == {f"table{table}.csv" for table in LAYOUT}


@pytest.mark.parametrize("table", LAYOUT)
def test_lines_are_numbers_without_duplicates(table):
    lines = read(table)
    for line in lines:
        for number in filter(None, (line["value"], line["std"])):
            assert number.replace(".", "", 1).isdigit(), line
            assert math.isfinite(float(number))
        assert line["value"] or (not line["std"] and line["note"]), line
        assert line["method"]
        assert line["column"]
        assert all(text == text.strip() for text in line.values()), line
    keys = Counter((line["method"], line["row"], line["column"]) for line in lines)
    assert keys.most_common(1)[0][1] == 1


@pytest.mark.parametrize("table", LAYOUT)
def test_every_number_of_the_paper_is_there(table):
    count, rows, columns = LAYOUT[table]
    lines = read(table)
    assert sum(bool(line["value"]) for line in lines) == count
    assert list(dict.fromkeys(line["row"] for line in lines if line["row"])) == rows.split(", ")
    assert sorted({line["column"] for line in lines}) == sorted(columns.split(", "))
    keyed = {(line["row"], line["column"]) for line in lines if line["row"]}
    every = {(row, column) for row in rows.split(", ") for column in columns.split(", ")}
    assert keyed == {(row, column) for row, column in every if row != "lst" or column in GLUE.split(", ")}, (
        "a cell of our table has no line"
    )
    assert all(
        len({line["method"] for line in lines if line["row"] == row}) == 1 for row in rows.split(", ") if table != 15
    )


@pytest.mark.parametrize("table", LAYOUT)
def test_keys_name_tasks_methods_and_models_that_exist(table):
    known = {*TASKS, *METHODS, *ALIASES, *(title for title, group in GROUP_OF.items() if group in GROUPS), *PLAIN_WORDS}
    known |= QUOTED_METHODS if table == 15 else set()
    for line in read(table):
        for word in f"{line['row']} {line['column']}".split():
            assert word in known or word.isdigit(), line


def test_only_table_4s_row_of_adept_is_unknown():
    unknown = {(table, line["row"]) for table in LAYOUT for line in read(table) if not line["value"]}
    assert unknown == {(4, "adept")}
    assert all("lost" in line["note"] for line in read(4) if not line["value"])


# Means ----------------------------------------------------------------------------------------------------------------

WRONG_MEANS = {  # (table, method, column): (the mean of the cells, why it is not the printed one)
    (3, "Full Fine-tuning (m)", "SuperGLUE"): (
        "76.48",
        "quoted so; 0.4 below its cells, which rounding cannot explain",
    ),
    (3, "HyperFormer (m)", "SuperGLUE"): (
        "75.48",
        "quoted so; the cells are rounded themselves, which explains up to 0.1",
    ),
    (3, "MPT (m)", "SuperGLUE"): ("76.16", "quoted so; the cells are rounded themselves, which explains up to 0.1"),
}


@pytest.mark.parametrize("table", [3, 4, 5, 6])
def test_printed_means_are_the_means_of_their_cells(table):
    wrong, checked = {}, 0
    by_method: dict[str, dict[str, Decimal]] = {}
    for line in read(table):
        if line["value"]:
            by_method.setdefault(line["method"], {})[line["column"]] = Decimal(line["value"])
    for method, cells in by_method.items():
        for title in cells.keys() - TASKS.keys():
            tasks = set(GROUPS[GROUP_OF[title]] if title in GROUP_OF else TASKS) & cells.keys()
            mean = sum(cells[task] for task in tasks) / len(tasks)
            checked += 1
            if abs(mean - cells[title]) > Decimal("0.05"):
                wrong[table, method, title] = str(mean.normalize())
    assert wrong == {key: mean for key, (mean, _) in WRONG_MEANS.items() if key[0] == table}
    assert checked == {3: 35, 4: 18, 5: 4, 6: 4}[table]  # LST has no SuperGLUE, ADePT's row of Table 4 is lost


# Parameter counts -----------------------------------------------------------------------------------------------------


def pt(width: int, length: int) -> int:
    return length * width


def dept(width: int, prompt: int, rank: int, source: int) -> int:
    return prompt * width + rank * (source + width)


def adept(width: int, prompt: int, bottleneck: int) -> int:
    return prompt * width + bottleneck * (2 * width + 1) + width


BASE, LARGE, CODEGEN, LLAMA = 768, 1024, 1024, 4096  # embedding widths of T5-base, T5-3B, CodeGen-350M, Llama3-8B
SEARCHED = [(20, 39), (40, 29), (60, 19), (80, 9)]  # Appendix E: prompt length and the bottleneck that goes with it
BUDGET = 76_800

# T5-base: the largest of the settings that were searched (with m = 80 ADePT has 76,041, which would print as 76.0K)
SMALL = {
    "pt": pt(BASE, 100),
    "dept": dept(BASE, 60, 30, 256),
    "adept": max(adept(BASE, prompt, bottleneck) for prompt, bottleneck in SEARCHED),
}
# What Tables 3 and 4 quote. T5-base: 48 adapters after sublayers, 28 of them in blocks 5 to 11, and 62 layer norms.
ADAPTER, NORMS = 2 * BASE * 24 + 24 + BASE, 62 * BASE
RELATIVE = 2 * 32 * 12  # T5's own relative position biases
BITFIT = 12 * (4 * BASE + 3072 + BASE + 2 * BASE) + 12 * (8 * BASE + 3072 + BASE + 3 * BASE) + 32_100
QUOTED = {
    "adapter": 48 * ADAPTER + NORMS,
    "adapterdrop": 28 * ADAPTER + NORMS,
    "bitfit": BITFIT,
    "lora": 72 * 32 * 2 * BASE + BITFIT + RELATIVE,
    "spot": pt(BASE, 100),
}
LONG = {"pt": pt(BASE, 200), "dept": dept(BASE, 120, 60, 256), "adept": adept(BASE, 120, 39)}
T5_3B = {
    "lora": 35 * 72 * 2 * (1024 + 4096),  # rank 35 on q and v of 72 attention blocks
    "pt": pt(LARGE, 100),
    "dept": dept(LARGE, 60, 26, 512),
    "adept": adept(LARGE, 60, 19),
}
DECODERS = {
    "codegen-350m lora": 16 * 20 * (1024 + 3072),  # rank 16 on the fused q, k, v of 20 blocks
    "codegen-350m pt": pt(CODEGEN, 10),
    "codegen-350m dept": dept(CODEGEN, 7, 2, 574),
    "codegen-350m adept": adept(CODEGEN, 7, 1),
    "llama3-8b lora": 16 * 32 * (2 * 4096 + 2 * (4096 + 1024)),  # rank 16 on q, k, v of 32 blocks
    "llama3-8b pt": pt(LLAMA, 10),
    "llama3-8b dept": dept(LLAMA, 7, 3, 574),
    "llama3-8b adept": adept(LLAMA, 7, 1),
}
PARAMS = {  # table: {row, or column of Table 15: trained parameters}
    3: SMALL | QUOTED,
    4: SMALL | {name: count for name, count in QUOTED.items() if name != "adapterdrop"},
    5: T5_3B,
    6: T5_3B,
    7: DECODERS,
    8: LONG,
    9: LONG | {"lora": T5_3B["lora"]},
    10: {"pt_embedding": 32_128 * BASE + pt(BASE, 100), "adept": SMALL["adept"]},
    14: {"adept 0": adept(BASE, 0, 49), "adept 60": adept(BASE, 60, 19)},
    15: SMALL | {"adapter": QUOTED["adapter"], "ia3": 12 * (2 * BASE + 3072)},
}

# 220M is T5-base's name rather than a count. LST's 3.8M is 1.74% of 220M; its count is that of 222.9M.
NOT_DERIVED = {3: {"full", "lst"}, 4: {"full"}, 15: {"full", *QUOTED_METHODS}}
TRUNCATED = {BITFIT: "280K"}


def printed(count: int) -> str:
    if count in TRUNCATED:
        return TRUNCATED[count]
    return f"{count / 1e6:.1f}M" if count >= 1_000_000 else f"{count / 1e3:.1f}K"


@pytest.mark.parametrize("table", LAYOUT)
def test_printed_parameter_counts_follow_from_the_formulas(table):
    """PT l d, DePT m d + r (s + d), ADePT m d + r (2 d + 1) + d."""
    key = "column" if table == 15 else "row"
    found = {(line[key], line["params"].upper()) for line in read(table) if line["row"] and line["params"]}
    derived = {(row, printed(count)) for row, count in PARAMS.get(table, {}).items()}
    assert {pair for pair in found if pair[0] not in NOT_DERIVED.get(table, ())} == derived


@pytest.mark.parametrize(
    ("prompt", "rank", "source"), [(20, 60, 256), (40, 45, 256), (60, 30, 256), (80, 15, 256), (60, 24, 512)]
)
def test_dept_has_as_many_parameters_as_prompt_tuning(prompt, rank, source):
    assert dept(BASE, prompt, rank, source) == BUDGET


@pytest.mark.parametrize(("prompt", "bottleneck"), [(0, 49), *SEARCHED, (50, 24), (70, 14)])
def test_bottlenecks_are_the_largest_within_the_budget(prompt, bottleneck):
    """Section 4.1's inequality: no more trained parameters than 100 tokens of prompt tuning."""
    assert adept(BASE, prompt, bottleneck) <= BUDGET < adept(BASE, prompt, bottleneck + 1)


# Single runs ----------------------------------------------------------------------------------------------------------


def is_share(value: float, rows: int) -> bool:
    """Is `value`, in percent with one decimal, k / rows for some k?"""
    return abs(100 * round(value * rows / 100) / rows - value) <= 0.05 + 1e-9


RTE_RUNS = [(table, key) for table in (1, 10, 11, 12, 13, 14) for key in values(table) if table != 1 or "rte" in key]
SINGLE_RUNS = [(3, (method, task)) for method in ("dept", "adept") for task in ("mrpc", "rte", "wic", "wsc", "cb")]


@pytest.mark.parametrize(("table", "key"), [*RTE_RUNS, *SINGLE_RUNS], ids=str)
def test_scores_of_one_run_are_shares_of_the_test_rows(table, key):
    """A mean over seeds would not be k/139 of RTE's test rows (k/28 of CB's, ...), so a mistyped digit shows."""
    task = key[1] if key[1] in TASKS else "rte"
    assert is_share(values(table)[key], TASKS[task].sizes[2])


def test_mbpp_scores_are_shares_of_974():
    """Both clean-ups of one sample for each of 487 tasks, as LoPA's protocol scores them.

    Some are k/974 rounded and some k/974 cut; each is the mean of two k/487 that were rounded first.
    """
    scores = values(7)
    for (row, _), value in scores.items():
        passes = round(value * 9.74)
        assert abs(100 * passes / 974 - value) < 0.01, row
        pairs = ((passes // 2 - shift, passes - passes // 2 + shift) for shift in range(4))
        means = [(round(100 * first / 487, 2) + round(100 * second / 487, 2)) / 2 for first, second in pairs]
        assert any(abs(mean - value) <= 0.005 + 1e-9 for mean in means), row
    odd = [row for (row, _), value in scores.items() if abs(100 * round(value * 4.87) / 487 - value) >= 0.01]
    assert odd == ["codegen-350m pt", "llama3-8b adept"]  # so no score of one clean-up alone


def test_few_shot_cb_of_adept_is_no_mean_accuracy():
    """The note's doubt: on CB's 28 test rows DePT's numbers are accuracies over three seeds, two of ADePT's are none
    over up to six.
    """
    rows, scores = TASKS["cb"].sizes[2], values(15)
    for shots in (4, 16, 32):
        assert is_share(scores[f"cb {shots}", "dept"], 3 * rows)
    for shots in (16, 32):
        assert not any(is_share(scores[f"cb {shots}", "adept"], seeds * rows) for seeds in range(1, 7))
    assert {line["row"] for line in read(15) if "macro-F1" in line["note"]} == {"cb 4", "cb 16", "cb 32"}
