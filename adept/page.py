"""All tables as one page, RESULTS_DIR/index.html: cells beside the paper's numbers, the run records behind them, plots. It needs a browser
and nothing else: style, script and data are in it, and no address is asked.

Every number of ours is one that a record holds. page.html is the frame, page.css its looks, page.js filters, sorts and shows records.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from adept import results, significance
from adept.config import FIELDS, model_label
from adept.markup import Markup, join, tag
from adept.methods import METHODS
from adept.plot import Mark, chart, legend
from adept.report import MISSING, QUANTITIES, Cell, Published, View, agreement
from adept.sweep import QUANTITY

PREDICTIONS, ALL_PREDICTIONS = 30, 9000
"""Predictions embedded for a run, and for all runs together."""

LETTERS = 240
"""Of a prediction or reference."""

STEPS, CURVE_STEPS, CURVE_SYMBOLS = 200, 100, 6
"""Evaluations of a history that are embedded, drawn as a line, and drawn as symbols on it."""

FACTS = ("task", "method", "model")
"""What rows, columns and tables can be filtered by."""

SEARCHED = ("prompt_lr", "offset_lr", "lr", "prompt_len", "bottleneck", "rank")
"""Fields whose searched values are drawn against the scores they gave."""

EMBEDDED = ("run_id", "trainable_params", "total_params", "param_groups", "best_step", "validation", "test", "sizes", "notes", "timing",
            "peak_memory_bytes", "provenance", "scoring_agreement", "tokens_per_example")  # fmt: skip
"""Keys of a record that the page holds as they are."""

GRADES = ((5, 3), (2, 2), (0.5, 1))
"""(points of difference from which on, depth of the colour)."""

SIGNIFICANT = 0.05

QUOTED = -1
"""The number of the series of what only the paper has: grey circles."""


# Facts and runs ---------------------------------------------------------------------------------------------------------


def facts(cells: Iterable[Cell], names: Iterable[str]) -> dict[str, str]:
    """{"data_task": "|rte|cb|", ...}: what the filter knows of a row, a column or a table."""
    configs = [cell.config for cell in cells if cell.config]
    found = {name: dict.fromkeys(model_label(c.model) if name == "model" else getattr(c, name) for c in configs) for name in names}
    return {f"data_{name}": f"|{'|'.join(values)}|" for name, values in found.items() if values}


def row_facts(view: View, row: str) -> dict[str, str]:
    return facts(view.cells[row].values(), [name for name in FACTS if name in view.table.rows])


def column_facts(view: View, column: str) -> dict[str, str]:
    cells = [by_column[part] for by_column in view.cells.values() for part in view.table.means.get(column, (column,)) if part in by_column]
    return facts(cells, [name for name in FACTS if name in view.table.columns])


def behind(view: View, cell: Cell) -> list[dict]:
    """The records of a cell; of a mean over tasks, those of its tasks."""
    parts = [view.cells[cell.row].get(task) for task in view.table.means.get(cell.column, ())]
    return [record for part in parts if part for record in part.records] or cell.records


def is_score(view: View, cell: Cell) -> bool:
    """Whether the cell is in points of percent; means over tasks are."""
    return cell.column in view.table.means or cell.metric not in QUANTITIES


class Runs:
    """The runs that some cell shows, in the order of the tables, with their places in the page and beside it."""

    def __init__(self, views: Sequence[View], folder: Path):
        self.records: dict[str, dict] = {}
        self.folders: dict[str, str] = {}
        self.anchors: dict[str, str] = {}
        self.page = folder
        taken: set[str] = set()
        for view in views:
            for cell in view.all_cells:
                for record in itertools.chain(cell.records, *cell.configurations):
                    self.folders.setdefault(record["run_id"], str(view.table.results_dir))
                for record in cell.records:
                    if record["run_id"] not in self.records:
                        self.records[record["run_id"]] = record
                        self.anchors[record["run_id"]] = unique(f"run-{record['run_id']}", taken)

    def file(self, run_id: str) -> str:
        """The address of the record, relative to the page."""
        return self.address(results.record_path(self.folders[run_id], run_id))

    def predictions_file(self, run_id: str) -> Path:
        return results.run_folder(self.folders[run_id], run_id) / "predictions.jsonl"

    def address(self, path: Path) -> str:
        return quote(Path(os.path.relpath(path, self.page)).as_posix())

    def link(self, text: Any, records: Sequence[dict], **attributes: Any) -> Markup:
        """A link to runs of this page: to the first one's line, from where the script shows them all."""
        ids = list(dict.fromkeys(record["run_id"] for record in records))
        return tag("a", text, href=f"#{quote(self.anchors[ids[0]])}", data_runs="\n".join(ids), **attributes)


def unique(name: str, taken: set[str]) -> str:
    """An id made of `name` that no other element has."""
    slug = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)
    name = next(one for number in itertools.count(1) if (one := slug if number == 1 else f"{slug}-{number}") not in taken)
    taken.add(name)
    return name


# Numbers ----------------------------------------------------------------------------------------------------------------


def minus(text: str) -> str:
    """With the minus sign of typography."""
    return text.replace("-", "−")


def signed(value: float, form: str = ".1f") -> str:
    text = f"{value:+{form}}"
    return minus(text) if float(text) else text[1:]


def chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def amount(text: str) -> float | None:
    """The paper's "76.1K", "220M" as a number."""
    found = re.match(r"([\d.]+) ?([KMB]?)\b", text)
    return float(found[1]) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9}[found[2]] if found else None


def grade(difference: float) -> str:
    depth = next((depth for points, depth in GRADES if abs(difference) >= points), 0)
    return f"{'up' if difference > 0 else 'down'}{depth}" if depth else "even"


def thin(items: Sequence[Any], limit: int, keep: Sequence[int] = ()) -> list[Any]:
    """At most `limit` items, evenly, with the first, the last and those numbered `keep`."""
    if len(items) <= limit:
        return list(items)
    spread = limit - len(keep)
    numbers = {round(number * (len(items) - 1) / (spread - 1)) for number in range(spread)} | set(keep)
    return [items[number] for number in sorted(numbers)]


def plain(value: Any) -> Any:
    """As JSON that every browser reads: six digits, no NaN, no text without end."""
    match value:
        case bool() | int() | None:
            return value
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else None
        case str():
            return clip(value, 4 * LETTERS)
        case Mapping():
            return {str(key): plain(one) for key, one in value.items()}
        case _:
            return [plain(one) for one in value]


def clip(text: str, limit: int = LETTERS) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


# The page ---------------------------------------------------------------------------------------------------------------


def write_page(views: Sequence[View], path: Path) -> None:
    """Writes the page of these tables. Its links lead to the records beside it; the same tables give the same bytes."""
    results.write_atomically(path, html(views, path.parent))


def html(views: Sequence[View], folder: Path | None = None) -> str:
    """The page as it stands in `folder`, by default the results folder of the first table."""
    runs = Runs(views, folder or (views[0].table.results_dir if views else Path()))
    taken = {"tables", "contents", "filter", "record", "record-title", "data", "runs", *runs.anchors.values()}
    names = [unique(view.table.name, taken) for view in views]
    template, look, script = ((Path(__file__).parent / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    policy = f"default-src 'none'; style-src '{digest(look)}'; script-src '{digest(script)}'; base-uri 'none'; form-action 'none'"
    page = Template(template).substitute(
        policy=policy,
        style=look,
        script=script,
        head=head(views, runs),
        contents=tag(
            "ul", *(contents(view, name) for view, name in zip(views, names, strict=True)), tag("li", tag("a", "All runs", href="#runs"))
        ),
        choices=join(choices(views)),
        sections=join(*(section(view, name, runs) for view, name in zip(views, names, strict=True))),
        runs=run_list(runs),
        data=script_json(embedded(runs)),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair, which JSON can hold and a file can not


def digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def script_json(value: Any) -> str:
    """JSON that can stand in a script element: no character of it ends the element or a line of JavaScript."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})


def head(views: Sequence[View], runs: Runs) -> Markup:
    """What the page is, how much there is, and where the runs come from."""
    records = list(runs.records.values())
    counts = {
        "tables": len(views),
        "runs": len(records),
        **{f"{name}s": len({record["config"].get(name) for record in records} - {None}) for name in FACTS},
    }
    missing, planned = sum(view.missing for view in views), sum(view.planned for view in views)
    waiting = f" {missing:,} of {planned:,} planned runs are missing." if missing else " Every planned run is there."
    return join(
        tag(
            "p",
            "Prompt tuning with adaptive decomposed prompts, trained again beside the methods it was compared with. Each number of ours is "
            "the test score of what validation chose, comes from a run record, and opens it.",
            waiting,
            class_="lead",
        ),
        tag("dl", *(tag("div", tag("dt", name if count != 1 else name[:-1]), tag("dd", f"{count:,}")) for name, count in counts.items()),
            class_="counts"),
        scale(views),
        origins(records),
    )  # fmt: skip


def scale(views: Sequence[View]) -> Markup:
    """How a cell is read."""
    compared = any(view.compared for view in views)
    text = (
        "A cell: mean ± standard deviation (number of seeds)"
        + ("; below it the paper's number and our difference to it in points" if compared else "")
        + f"; Δ, the difference to ADePT in that column, and its p-value by paired bootstrap over test rows, bold below {SIGNIFICANT}."
        + f" † fewer than {significance.SMALL_TEST} test rows. {MISSING} no run yet."
    )
    words = {"down3": "−5 and less", "down2": "−2", "down1": "−0.5", "even": "0", "up1": "+0.5", "up2": "+2", "up3": "+5 and more"}
    colours = tag("span", *(tag("span", word, class_=step) for step, word in words.items()), class_="scale")
    return tag("p", text, colours if compared else None, class_="told")


def origins(records: Sequence[dict]) -> Markup | None:
    """Commits, versions and devices of the records, with the number of runs of each."""
    sources = [record.get("provenance", {}) for record in records]
    if not any(sources):
        return None
    commits = Counter(
        f"{source['git'][:10]}{' with local changes' if source.get('dirty') else ''}" for source in sources if source.get("git")
    )
    versions: dict[str, Counter] = {"Python": Counter(source["python"] for source in sources if source.get("python"))}
    for source in sources:
        for package, version in source.get("packages", {}).items():
            versions.setdefault(package, Counter())[version] += 1
    entries = {
        "commit" if len(commits) == 1 else "commits": commits,
        **versions,
        **{name: Counter(str(source[name]) for source in sources if source.get(name)) for name in ("device", "protocol")},
    }
    rows = [
        tag("div", tag("dt", name), tag("dd", join(*((tag("code", value), f" {count:,}" if len(values) > 1 else "") for value, count in
                                                    sorted(values.items())), between=" ")))
        for name, values in entries.items() if values
    ]  # fmt: skip
    return tag("details", tag("summary", "Commits, versions and devices of the runs"), tag("dl", *rows, class_="origins"))


def contents(view: View, name: str) -> Markup:
    done = view.planned - view.missing
    return tag(
        "li", tag("a", view.table.title, href=f"#{name}"), tag("span", f"{done:,}/{view.planned:,}" if view.missing else f"{done:,}")
    )


def choices(views: Sequence[View]) -> Iterator[Markup]:
    """A menu for each of FACTS, with the values of all planned runs."""
    found: dict[str, dict[str, None]] = {name: {} for name in FACTS}
    for view in views:
        for name in FACTS:
            found[name] |= dict.fromkeys(facts(view.all_cells, [name]).get(f"data_{name}", "").strip("|").split("|"))
    for name, values in found.items():
        options = [tag("option", "all", value=""), *(tag("option", value) for value in sorted(values) if value)]
        if len(options) > 2:
            yield tag("label", name.capitalize(), tag("select", *options, name=name))


# A table ----------------------------------------------------------------------------------------------------------------


def section(view: View, name: str, runs: Runs) -> Markup:
    table = view.table
    elsewhere = [fact for fact in FACTS if fact not in (*table.rows, *table.columns)]
    done = view.planned - view.missing
    state = f"{done:,} of {view.planned:,} runs are there" + (f"; {view.pending:,} wait for validation to choose" if view.pending else "")
    return tag(
        "section",
        tag("h2", table.title, id=f"{name}-title"),
        tag("p", tag("progress", max=view.planned, value=done, aria_label="runs done"), f" {state}.", class_="state")
        if view.missing
        else None,
        changed(view),
        tag("p", table.note) if table.note else None,
        tag("div", grid(view, runs), class_="scroll", role="region", tabindex=0, aria_labelledby=f"{name}-title"),
        tag("div", *(tag("p", line) for line in footnotes(view)), class_="notes"),
        tag("div", against_adept(view), *plots(view), searched(view, runs), about_the_paper(view), class_="more"),
        class_="table",
        id=name,
        aria_labelledby=f"{name}-title",
        **facts(view.all_cells, elsewhere),
    )


def differs(view: View) -> bool:
    """Whether a profile or the command line changed the runs of the table."""
    return bool(view.table.profile or view.changed)


def changed(view: View) -> Markup | None:
    """What the profile and the command line changed for all runs, in plain sight."""
    if not differs(view):
        return None
    profile = f"Profile {view.table.profile}. " if view.table.profile else ""
    fields = join(*(tag("code", f"{name} = {value}") for name, value in view.changed.items()), between=" ")
    told = ("Changed for all runs: ", fields) if view.changed else None
    uncoloured = ". Differences to the paper are not coloured." if view.compared else None
    return tag("p", tag("strong", "Not as the table stands. "), profile, told, uncoloured, class_="changed")


def named(view: View, column: str) -> str:
    """The column with its field's name where its values are bare numbers."""
    fields = [name for name in view.table.columns if name not in (*FACTS, QUANTITY)]
    return f"{' '.join(fields)} {column}" if fields and re.fullmatch(r"[\d.e+-]+", column) else column


def grid(view: View, runs: Runs) -> Markup:
    """The table: a row's parameters, its cells, and below it what the paper quotes and nobody ran here."""
    axis = " ".join(name for name in view.table.rows if name != QUANTITY)
    heading = [
        tag(
            "th",
            named(view, column),
            tag("small", metric) if metric and metric not in column else None,
            scope="col",
            **column_facts(view, column),
        )
        for column, metric in view.columns.items()
    ]
    top = tag("tr", tag("th", axis, scope="col"), tag("th", "trained parameters", scope="col"), *heading)
    rows = []
    for row, by_column in view.cells.items():
        counts = sorted({record["trainable_params"] for cell in by_column.values() for record in behind(view, cell)})
        trained = tag("td", " / ".join(f"{count:,}" for count in counts) or MISSING, data_value=counts[0] if counts else None)
        cells = (cell_of(view, by_column[name], metric, runs) if name in by_column else tag("td") for name, metric in view.columns.items())
        rows.append(tag("tr", tag("th", row, scope="row"), trained, *cells, **row_facts(view, row)))
    quoted = [
        tag(
            "tr",
            tag("th", method, scope="row"),
            tag("td", next(iter(by_column.values())).params or MISSING, data_value=amount(next(iter(by_column.values())).params)),
            *(tag("td", paper_number(by_column.get(column)), data_value=by_column[column].value if column in by_column else None)
              for column in view.columns),
            **({"data_method": f"|{method}|"} if "method" in view.table.rows else {}),
        )
        for method, by_column in view.quoted.items() if any(column in by_column for column in view.columns)
    ]  # fmt: skip
    group = tag("tr", tag("th", "Printed in the paper, not run here", scope="rowgroup", colspan=2 + len(view.columns)))
    return tag(
        "table",
        tag("caption", view.table.title),
        tag("thead", top),
        tag("tbody", *rows),
        tag("tbody", group, *quoted, class_="quoted") if quoted else None,
    )


def paper_number(paper: Published | None) -> str:
    """As printed: whole numbers got their ".0" back, which a table of percents has and a float has not."""
    if paper is None or paper.value is None:
        return MISSING
    texts = [f"{value:g}" for value in (paper.value, paper.std) if value is not None]
    return minus(" ± ".join(text if "." in text or "e" in text else f"{text}.0" for text in texts))


def cell_of(view: View, cell: Cell, metric: str | None, runs: Runs) -> Markup:
    """One cell: ours and its records; the paper's number and the difference; what the paired bootstrap says."""
    score, difference, test = is_score(view, cell), cell.difference, view.tests.get((cell.row, cell.column))
    form = ".1f" if score else ".3g"  # speeds, hours and sizes of offsets span orders of magnitude
    ours: list[Any] = [tag("span", MISSING, class_="ours") if cell.planned or cell.column in view.table.means else None]
    if cell.mean is not None:
        spread = tag("span", f" ± {cell.std:{form}}", class_="spread") if cell.std is not None else ""
        count = tag("span", f" ({len(cell.values)})", class_="count")
        ours = [
            runs.link([minus(f"{cell.mean:{form}}"), spread, count], behind(view, cell), class_="ours"),
            tag("sup", "†") if small(cell) else None,
        ]
        if metric is None and cell.metric:
            ours.append(tag("small", f" {cell.metric}"))
    beside = []
    if cell.paper and cell.paper.value is not None:
        beside.append(tag("span", tag("i", "paper "), paper_number(cell.paper)))
        if difference is not None:
            arrow = {True: "▲", False: "▼"}[difference > 0] if f"{difference:+{form}}".strip("+-0.") else ""
            beside.append(tag("span", f"{arrow} {signed(difference, form)}", class_="difference"))
    told = None
    if test:
        inside = tag("strong" if test["p"] < SIGNIFICANT else "span", chance(test["p"]))
        told = tag("div", f"Δ {signed(-test['difference'])}, ", inside, class_="test")
    gap = tag("div", f"{cell.planned - cell.missing} of {cell.planned} runs", class_="gap") if cell.missing else None
    # Colours are for like beside like: not for speeds and sizes, nor where all runs were changed.
    shade = grade(difference) if difference is not None and score and not differs(view) else None
    return tag("td", *ours, tag("div", join(*beside, between=" "), class_="beside") if beside else None, told, gap, class_=shade,
               data_value=None if cell.mean is None else f"{cell.mean:.6g}")  # fmt: skip


def small(cell: Cell) -> bool:
    return all("sizes" in record for record in cell.records) and cell.small


def footnotes(view: View) -> list[str]:
    lines, chances = [], {}
    for cell in view.all_cells:
        for record in cell.records if small(cell) else []:
            task = record["config"].get("task", MISSING)
            chances[task] = max(chances.get(task, 0), significance.noise(record))
    if chances:
        told = ", ".join(f"{points:.0f} on {task}" for task, points in chances.items())
        lines.append(
            f"† fewer than {significance.SMALL_TEST} test rows. Points by which two single runs must differ to be told apart: {told}."
        )
    return lines + agreement(view) + [f"{note}." for note in view.notes]


def against_adept(view: View) -> Markup | None:
    if not view.tests:
        return None
    rows = [
        tag("tr", tag("th", row, scope="row"), tag("td", column), tag("td", signed(-test["difference"])),
            tag("td", f"{signed(-test['high'])} to {signed(-test['low'])}"), tag("td", minus(f"{test['p']:.2g}")))
        for (row, column), test in view.tests.items()
    ]  # fmt: skip
    told = tag("p", "The same test rows, drawn again with replacement, averaged over the seeds of each.", class_="told")
    return tag("details", tag("summary", "Differences to ADePT and their intervals"), told,
               small_table(["", "", "difference", "95% interval", "p"], rows, "Differences to ADePT"))  # fmt: skip


def about_the_paper(view: View) -> Markup | None:
    """Notes of the published numbers: whose they are, what is not stated."""
    entries = [cell.paper for cell in view.all_cells if cell.paper] + [entry for row in view.quoted.values() for entry in row.values()]
    notes: dict[str, dict[str, None]] = {}
    for entry in entries:
        if entry.note:
            notes.setdefault(entry.note, {})[entry.method] = None
    if not notes:
        return None
    items = (tag("li", f"{', '.join(methods)}: {note}") for note, methods in notes.items())
    return tag("details", tag("summary", "About the paper's numbers"), tag("ul", *items, class_="plain"))


def small_table(heading: Sequence[str], rows: Sequence[Markup], name: str) -> Markup:
    top = tag("tr", *(tag("th", text, scope="col") if text else tag("td") for text in heading))
    table = tag("table", tag("caption", name), tag("thead", top), tag("tbody", *rows), class_="small")
    return tag("div", table, class_="scroll", role="region", tabindex=0, aria_label=name)


# Plots ------------------------------------------------------------------------------------------------------------------


@dataclass
class Panel:
    """One small chart: cells of the same task beside each other. key: the column's or row's name; series: {name: cell}."""

    key: str
    name: str
    metric: str
    series: dict[str, Cell]
    facts: dict[str, str] = field(default_factory=dict)


def panels(view: View) -> list[Panel]:
    """A panel for each column, or for each row where rows are tasks."""
    if "task" in view.table.rows:
        made = []
        for row, by_column in view.cells.items():
            metric = next((cell.metric for cell in by_column.values() if cell.metric), "score")
            made.append(Panel(row, row, metric, by_column, row_facts(view, row)))
    else:
        made = []
        for column, metric in view.columns.items():
            cells = {row: by_column[column] for row, by_column in view.cells.items() if column in by_column}
            made.append(Panel(column, named(view, column), metric or "score", cells, column_facts(view, column)))
    return [panel for panel in made if panel.series and all(is_score(view, cell) for cell in panel.series.values())]


def numbers(methods: Mapping[Any, str]) -> dict[Any, int]:
    """{series: its number}, which is its method's where every series is another method, so that a method looks alike on the whole page."""
    order = list(METHODS)
    if len(set(methods.values())) == len(methods) and all(method in order for method in methods.values()):
        return {name: order.index(method) for name, method in methods.items()}
    return {name: place for place, name in enumerate(methods)}


class Series:
    """Numbers and filter facts of a table's series: its rows, or its columns where rows are tasks. What only the paper has is grey."""

    def __init__(self, view: View):
        by_row = "task" not in view.table.rows
        found = {name: row_facts(view, name) if by_row else column_facts(view, name) for name in (view.cells if by_row else view.columns)}
        self.facts = {name: {key.removeprefix("data_"): value for key, value in own.items()} for name, own in found.items()}
        self.number = dict.fromkeys(self.facts, QUOTED)
        self.number |= numbers({name: own["method"].strip("|") if "method" in own else name for name, own in self.facts.items() if own})

    def legend(self, names: Iterable[str], *told: str) -> Markup:
        shown = set(names)
        return legend([(name, self.number[name], self.facts[name]) for name in self.facts if name in shown], *told)


def plots(view: View) -> Iterator[Markup | None]:
    series, made = Series(view), panels(view)
    yield curves(made, series)
    yield against_parameters(view, made, series)
    for name in SEARCHED:
        yield sensitivity(view, name)
    yield histograms(view)


def group(title: str, figures: Sequence[Markup], keys: Markup, *, opened: bool = False) -> Markup | None:
    """Charts under one summary and legend; None without any."""
    return tag("details", tag("summary", title), keys, tag("div", *figures, class_="figures"), open=opened) if figures else None


def figure(panel: Panel, marks: Sequence[Mark], **options: Any) -> Markup:
    caption = tag("figcaption", panel.name, tag("small", panel.metric) if panel.metric not in panel.name else None)
    return tag("figure", caption, chart(marks, **options), **panel.facts)


def curve(record: dict, cell: Cell) -> list[tuple[float, float]]:
    """(step, validation score) of the printed metric, or of the one that selects where only that was validated."""
    selects = record["config"].get("select_on") or cell.metric
    metric = cell.metric if any(cell.metric in entry["validation"] for entry in record["history"]) else selects
    points = [(entry["step"], entry["validation"][metric]) for entry in record["history"] if entry["validation"].get(metric) is not None]
    return thin(points, CURVE_STEPS)


def curves(made: Sequence[Panel], series: Series) -> Markup | None:
    figures, shown = [], set()
    for panel in made:
        marks, said = [], []
        for name, cell in panel.series.items():
            found = [(points, record) for record in cell.records if (points := curve(record, cell))]
            for points, record in found:
                place = {"series": series.number[name], "facts": series.facts[name]}
                told = f"{name}, seed {record['config'].get('seed', '?')}: {points[-1][1]:.1f} at step {points[-1][0]:,}"
                marks.append(Mark("line" if len(points) > 1 else "level", points=points, name=told, **place))
                if len(points) > 1:
                    few = thin(points, CURVE_SYMBOLS)
                    marks.append(Mark("dots", points=few, titles=[f"{name}: {y:.1f} at step {x:,}" for x, y in few], **place))
            if found:
                said.append(f"{name} ends at {found[0][0][-1][1]:.1f}")
                shown.add(name)
        if any(mark.kind == "line" for mark in marks):
            label = f"Validation score over steps, {panel.name}: {'; '.join(said)}"
            figures.append(figure(panel, marks, x="step", y="validation", label=label))
    told = "Validation score of the chosen runs, a line for each seed; what is evaluated once is a level."
    return group("Learning curves", figures, series.legend(shown, told), opened=True)


def against_parameters(view: View, made: Sequence[Panel], series: Series) -> Markup | None:
    """Test score over trained parameters, ours and the paper's."""
    figures, shown, printed = [], set(), False
    for panel in made:
        marks: list[Mark] = []
        for name, cell in panel.series.items():
            place = {"series": series.number[name], "facts": series.facts[name]}
            counts = [record["trainable_params"] for record in behind(view, cell)]
            if cell.mean is not None and counts:
                told = f"{name}: {cell.mean:.1f} with {round(statistics.mean(counts)):,} trained parameters"
                point = (statistics.mean(counts), cell.mean)
                marks.append(Mark("dots" if point[0] else "level", points=[point], name=told, titles=[told] if point[0] else (), **place))
                shown.add(name)
            if cell.paper and cell.paper.value is not None and (count := amount(cell.paper.params)):
                told = f"{name} in the paper: {cell.paper.value:g} with {cell.paper.params}"
                marks.append(Mark("hollow", points=[(count, cell.paper.value)], titles=[told], **place))
                shown.add(name)
        quoted = []
        for method, by_column in view.quoted.items():
            entry = by_column.get(panel.key)
            if entry and entry.value is not None and (count := amount(entry.params)):
                quoted.append(((count, entry.value), f"{method} in the paper: {entry.value:g} with {entry.params}"))
        if quoted:
            marks.append(Mark("hollow", QUOTED, [point for point, _ in quoted], titles=[told for _, told in quoted]))
        printed = printed or any(mark.kind == "hollow" for mark in marks)
        across = [point[0] for mark in marks if mark.kind != "level" for point in mark.points]
        if any(mark.kind == "dots" for mark in marks) and max(across) >= 2 * min(across):
            said = "; ".join(title for mark in marks for title in (mark.titles or [mark.name]))
            options = {"x": "trained parameters", "y": "test", "log": True}
            figures.append(figure(panel, marks, label=f"Test score over trained parameters, {panel.name}: {said}", **options))
    told = ["Test score; a level has nothing to train."] + (["Hollow: the paper; small circles: methods not run here."] if printed else [])
    return group("Score and trained parameters", figures, series.legend(shown, *told))


def histograms(view: View) -> Markup | None:
    """Norms of embeddings and offsets of every record that measured them (adept/analysis.py), once each."""
    figures = []
    measured = {record["run_id"]: (cell, record) for cell in view.all_cells for record in cell.records if record.get("offsets")}
    for cell, record in measured.values():
        marks, said = [], []
        for place, name in ((0, "embeddings"), (5, "offset")):
            sizes = record["offsets"].get(name)
            if not sizes or not sum(sizes["norms"]["counts"]):
                continue
            edges, counts = sizes["norms"]["edges"], sizes["norms"]["counts"]
            told = f"{name}: |element| {sizes['mean']:.3g} on average, variance {sizes['variance']:.3g}"
            marks.append(Mark("bars", place, histogram(edges, counts), name=told))
            said.append(told)
        if marks:
            config = record["config"]
            name = " ".join(str(config[key]) for key in ("method", "task", "seed") if key in config)
            label = f"Norms of tokens, {name}: {'; '.join(said)}"
            drawn = chart(marks, x="Euclidean norm", y="share of tokens", label=label, log=True, floor=0)
            words = tag("p", *(join(line, tag("br")) for line in said), class_="told")
            figures.append(tag("figure", tag("figcaption", name), drawn, words, **facts([cell], FACTS)))
    keys = legend([("embeddings", 0, {}), ("offset", 5, {})], "Euclidean norms of the training set's tokens, share in each bin.")
    return group("Sizes of embeddings and offsets", figures, keys)


def histogram(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[float, float]]:
    """(left edge, share) of the occupied bins and 0 at the end. A bin that begins at 0 is drawn from half its end on."""
    total = sum(counts)
    taken = [number for number, count in enumerate(counts) if count]
    bins = range(taken[0], taken[-1] + 1)
    left = [edges[number] or edges[number + 1] / 2 for number in bins]
    return [*zip(left, (counts[number] / total for number in bins), strict=True), (edges[taken[-1] + 1], 0.0)]


# What was searched ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Searched:
    """A configuration that was tried for a cell: means over its seeds."""

    cell: Cell
    records: list[dict]
    validation: float | None
    test: float | None

    @property
    def chosen(self) -> bool:
        return self.records[0]["run_id"] in {record["run_id"] for record in self.cell.records}

    @property
    def config(self) -> Mapping[str, Any]:
        return self.records[0]["config"]


def mean_of(records: Sequence[dict], split: str, *metrics: str) -> float | None:
    for metric in metrics:
        values = [record[split][metric] for record in records if record[split].get(metric) is not None]
        if values:
            return statistics.mean(values)
    return None


def configurations(view: View) -> list[Searched]:
    """Every configuration of every scored cell, once each."""
    found: dict[tuple[str, ...], Searched] = {}
    for cell in view.all_cells:
        for records in cell.configurations if is_score(view, cell) else []:
            selects = records[0]["config"].get("select_on") or cell.metric
            one = Searched(cell, records, mean_of(records, "validation", selects, cell.metric), mean_of(records, "test", cell.metric))
            found.setdefault(tuple(record["run_id"] for record in records), one)
    return list(found.values())


def sensitivity(view: View, name: str) -> Markup | None:
    """Scores over the values of one searched field: a panel for each task and model, a series for each row or column beside them."""
    axes = [axis for axis in (*view.table.rows, *view.table.columns) if axis not in (name, "task", "model", QUANTITY)]
    pools: dict[tuple, dict[tuple, list[Searched]]] = {}
    for one in configurations(view):
        value, config = one.config.get(name), one.cell.config
        if isinstance(value, (int, float)) and one.validation is not None and one.test is not None and config:
            series = tuple(str(getattr(config, axis)) for axis in ["method", *axes] if getattr(config, axis) is not None)
            pools.setdefault((config.task, model_label(config.model)), {}).setdefault(tuple(dict.fromkeys(series)), []).append(one)
    pools = {key: only for key, pool in pools.items() if (only := {series: tried for series, tried in pool.items() if varies(tried, name)})}
    series = numbers({key: key[0] for pool in pools.values() for key in pool})
    figures = [sensitivity_figure(task, model, pool, series, name) for (task, model), pool in pools.items()]
    entries = [
        (" ".join(key), number, facts_of_series([one for pool in pools.values() for one in pool.get(key, [])]))
        for key, number in series.items()
    ]
    told = (
        "Every configuration that was searched: filled is test, hollow is validation, ringed is chosen; the line is the mean of validation."
    )
    return group(f"Sensitivity to {name}", figures, legend(entries, told))


def varies(tried: Sequence[Searched], name: str) -> bool:
    return len({one.config[name] for one in tried}) > 1


def sensitivity_figure(task: str, model: str, pool: Mapping[tuple, list[Searched]], series: Mapping[tuple, int], name: str) -> Markup:
    marks: list[Mark] = []
    values = sorted({one.config[name] for tried in pool.values() for one in tried})
    for place, (key, tried) in enumerate(pool.items()):
        middle, own, label = 11 * (place - (len(pool) - 1) / 2), facts_of_series(tried), " ".join(key)
        by_value = {value: [one.validation for one in tried if one.config[name] == value] for value in values}
        means = [(value, statistics.mean(scores)) for value, scores in by_value.items() if scores]
        marks.append(Mark("line", series[key], means, name=f"{label}: mean validation score", shift=middle, facts=own))
        for kind, split, aside in (("hollow", "validation", -2.5), ("dots", "test", 2.5)):
            points = [(one.config[name], getattr(one, split)) for one in tried]
            titles = [f"{label}, {split} {y:.1f} at {x:g}{', chosen' * one.chosen}" for one, (x, y) in zip(tried, points, strict=True)]
            marks.append(Mark(kind, series[key], points, titles=titles, shift=middle + aside, facts=own))
            chosen = [point for one, point in zip(tried, points, strict=True) if one.chosen]
            marks.append(Mark("rings", series[key], chosen, shift=middle + aside, facts=own))
    log = min(values) > 0 and max(values) >= 8 * min(values)
    label = f"Scores over {name}, {task}: {', '.join(' '.join(key) for key in pool)} at {', '.join(f'{value:g}' for value in values)}"
    metric = next(iter(pool.values()))[0].cell.metric
    panel = Panel("", f"{task} {model}", metric, {}, {"data_task": f"|{task}|", "data_model": f"|{model}|"})
    return figure(panel, marks, x=name, y="score", label=label, log=log, x_ticks=values if len(values) <= 8 else None)


def facts_of_series(members: Sequence[Searched]) -> dict[str, str]:
    return {"method": f"|{'|'.join(dict.fromkeys(one.cell.config.method for one in members))}|"}


def searched(view: View, runs: Runs) -> Markup | None:
    """Every configuration with its scores, where validation had a choice."""
    found = [one for one in configurations(view) if len(one.cell.configurations) > 1]
    if not found:
        return None
    varied = [name for name in FIELDS if name in SEARCHED or len({str(one.config.get(name)) for one in found}) > 1]
    varied = [name for name in varied if name not in (*view.table.rows, *view.table.columns, "seed", "init_from") and
              len({str(one.config.get(name)) for one in found}) > 1]  # fmt: skip
    rows = []
    for one in found:
        links = (tag("a", record["config"].get("seed", "record"), href=runs.file(record["run_id"])) for record in one.records)
        rows.append(tag(
            "tr",
            tag("th", f"{one.cell.row} {one.cell.column}", scope="row"),
            *(tag("td", MISSING if (value := one.config.get(name)) is None else f"{value:g}" if isinstance(value, float) else str(value))
              for name in varied),
            *(tag("td", MISSING if score is None else minus(f"{score:.1f}")) for score in (one.validation, one.test)),
            tag("td", "✓ chosen" if one.chosen else ""),
            tag("td", join(*links, between=" ")),
            class_="chosen" if one.chosen else None,
        ))  # fmt: skip
    table = small_table(["", *varied, "validation", "test", "choice", "seeds"], rows, "Searched configurations")
    return tag("details", tag("summary", f"All {len(found):,} configurations that were searched"), table)


# Runs -------------------------------------------------------------------------------------------------------------------


def run_list(runs: Runs) -> Markup:
    """A line for each run: where the links of the cells lead without scripts."""
    heading = ["run", *FACTS, "seed", "trained parameters", "best step", "validation", "test"]
    rows = []
    for run_id, record in runs.records.items():
        config = record["config"]
        known = {name: model_label(str(config[name])) if name == "model" else str(config[name]) for name in FACTS if name in config}
        numbers = [config.get("seed", MISSING), f"{record['trainable_params']:,}", f"{record['best_step']:,}"]
        split_scores = (join(*(f"{minus(f'{value:.1f}')} {metric}" for metric, value in record[split].items()), between=", ")
                        for split in ("validation", "test"))  # fmt: skip
        rows.append(tag(
            "tr",
            tag("th", runs.link(run_id, [record]), " ", tag("a", "JSON", href=runs.file(run_id), class_="file"), scope="row"),
            *(tag("td", known.get(name, MISSING)) for name in FACTS),
            *(tag("td", number) for number in numbers),
            *(tag("td", text or MISSING) for text in split_scores),
            id=runs.anchors[run_id],
            **{f"data_{name}": f"|{value}|" for name, value in known.items()},
        ))  # fmt: skip
    title = tag("h2", "All runs", id="runs-title")
    body = small_table(heading, rows, "All runs") if rows else tag("p", "No runs yet.")
    return tag("section", title, body, class_="table", id="runs", aria_labelledby="runs-title")


def embedded(runs: Runs) -> dict:
    """What the page's script reads: {"defaults": of RunConfig, "runs": {run id: the record, shortened}}."""
    limit = min(PREDICTIONS, max(5, ALL_PREDICTIONS // max(1, len(runs.records))))
    defaults = {name: one.default for name, one in FIELDS.items() if isinstance(one.default, (str, int, float, bool))}
    return plain({
        "defaults": defaults,
        "runs": {run_id: run_data(record, runs, limit) for run_id, record in runs.records.items()},
    })  # fmt: skip


def run_data(record: dict, runs: Runs, predictions: int) -> dict:
    run_id, history = record["run_id"], record["history"]
    best = [number for number, entry in enumerate(history) if entry["step"] == record["best_step"]][:1]
    places = ("data_dir", "results_dir")  # of the machine, not of the run
    data = {
        **{key: record[key] for key in EMBEDDED if key in record},
        "anchor": runs.anchors[run_id],
        "file": runs.file(run_id),
        "config": {name: value for name, value in record["config"].items() if value is not None and name not in places},
        "history": [
            {key: entry[key] for key in ("step", "train_loss", "validation", "seconds") if key in entry}
            for entry in thin(history, STEPS, best)
        ],
        "evaluations": len(history),
    }
    if offsets := record.get("offsets"):
        data["offsets"] = {name: {key: offsets[name][key] for key in ("mean", "variance") if key in offsets[name]}
                           for name in ("embeddings", "offset") if offsets.get(name)}  # fmt: skip
    if first := first_predictions(runs.predictions_file(run_id), predictions):
        data |= {"predictions": first, "predictions_file": runs.address(runs.predictions_file(run_id))}
    return data


def first_predictions(path: Path, limit: int) -> list[list]:
    """[id, prediction, references] of the first test rows; none where the run left no such file, or somebody damaged it."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            rows = [json.loads(line) for line in itertools.islice(file, limit) if line.strip()]
    except (ValueError, RecursionError):
        return []
    return [
        [clip(row["id"]), clip(row["prediction"]), [clip(one) for one in row["references"][:4]]]
        for row in rows
        if results.is_prediction(row)
    ]
