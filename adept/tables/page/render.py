"""Renders the page: view data from the other files of this package, put into the templates."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adept.base.atomic_files import write_atomically
from adept.tables.claims import ClaimLine
from adept.tables.page.claims import claim_section
from adept.tables.page.formatting import thousands, unique_id
from adept.tables.page.runs import RunIndex, embedded_data, run_lines
from adept.tables.page.section import make_section, progress_text
from adept.tables.page.views import FILTERS, filter_attributes
from adept.tables.report import MISSING, View
from adept.tables.significance import SIGNIFICANT, SMALL_TEST

TEMPLATES = Path(__file__).parent / "templates"

RESERVED_IDS = (
    "claims", "claims-title", "tables", "contents", "filter", "record", "record-title", "data", "runs", "runs-title",
)  # fmt: skip
"""Ids of page.html and page.js."""


@dataclass(frozen=True)
class PageWords:
    """What the page says about itself: the title of its window, its heading, and a sentence below that."""

    title: str
    heading: str
    lead: str


PAPER_WORDS = PageWords(
    "ADePT reproduced: results",
    "ADePT, reproduced",
    "Prompt tuning with adaptive decomposed prompts, trained again beside the methods it was compared with.",
)


def words_of(view: View) -> PageWords:
    """The words of the page of one table."""
    methods = list(dict.fromkeys(cell.config.method for cell in view.all_cells if cell.config))
    tasks = list(dict.fromkeys(cell.config.task for cell in view.all_cells if cell.config))
    title = view.table.title
    return PageWords(title, title, f"{', '.join(methods)} on {', '.join(tasks)}." if methods else "")


def write_page(
    views: Sequence[View], path: Path, words: PageWords = PAPER_WORDS, claims: Sequence[ClaimLine] = ()
) -> None:
    """Writes the page of these tables. Its links lead to the records beside it; the same tables give the same bytes."""
    write_atomically(path, html(views, path.parent, words, claims))


def html(
    views: Sequence[View],
    folder: Path | None = None,
    words: PageWords = PAPER_WORDS,
    claims: Sequence[ClaimLine] = (),
) -> str:
    """The page as it stands in `folder`, by default in the results folder of the first table."""
    baselines = list(dict.fromkeys(view.baseline_name for view in views))
    runs = RunIndex(views, folder or (views[0].table.results_dir if views else Path()))
    taken = {*RESERVED_IDS, *runs.anchors.values()}
    sections = [make_section(view, unique_id(view.table.name, taken), runs) for view in views]
    section_ids = {view.table.file_name: section.id for view, section in zip(views, sections, strict=True)}
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    page = environment().get_template("page.html").render(
        title=words.title,
        heading=words.heading,
        lead=words.lead,
        baseline=baselines[0] if len(baselines) == 1 else "the cell that its table compares with",
        policy=content_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        counts=counts(views, runs),
        missing=sum(view.missing for view in views),
        planned=sum(view.planned for view in views),
        is_compared=any(view.compared for view in views),
        origins=origins(list(runs.records.values())),
        claims=claim_section(claims, section_ids),
        sections=sections,
        menus=menus(views),
        filters=FILTERS,
        runs=run_lines(runs),
        data=embedded_data(runs),
    )  # fmt: skip
    return page.encode("utf-8", "replace").decode("utf-8")  # a file cannot hold half a surrogate pair, JSON can


def environment() -> Environment:
    """Escapes whatever is not Markup; an unknown name in a template raises an error."""
    made = Environment(
        loader=PackageLoader("adept.tables.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"thousands": thousands, "progress_text": progress_text}
    made.globals |= {"MISSING": MISSING, "SMALL_TEST": SMALL_TEST, "SIGNIFICANT": SIGNIFICANT}
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return made


def content_policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows this style sheet and this script alone."""
    return (
        f"default-src 'none'; style-src '{source_hash(style)}'; script-src '{source_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def source_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def counts(views: Sequence[View], runs: RunIndex) -> dict[str, int]:
    """How many tables, runs, tasks, methods and models the page shows: {name, in the plural: number}."""
    configs = [record["config"] for record in runs.records.values()]
    by_field = {f"{name}s": len({config.get(name) for config in configs} - {None}) for name in FILTERS}
    return {"tables": len(views), "runs": len(configs), **by_field}


@dataclass(frozen=True)
class Origin:
    """values: (value, number of runs that have it), sorted."""

    name: str
    values: Sequence[tuple[str, int]]


def origins(records: Sequence[Mapping[str, Any]]) -> list[Origin]:
    """Commits, versions and devices of the records; empty where no record tells any."""
    sources = [record.get("provenance", {}) for record in records]
    commits = Counter(
        f"{source['git'][:10]}{' with local changes' if source.get('dirty') else ''}"
        for source in sources
        if source.get("git")
    )
    versions = {"Python": Counter(source["python"] for source in sources if source.get("python"))}
    for source in sources:
        for package, version in source.get("packages", {}).items():
            versions.setdefault(package, Counter())[version] += 1
    entries = {
        "commit" if len(commits) == 1 else "commits": commits,
        **versions,
        **{
            name: Counter(str(source[name]) for source in sources if source.get(name))
            for name in ("device", "protocol")
        },
    }
    return [Origin(name, sorted(values.items())) for name, values in entries.items() if values]


@dataclass(frozen=True)
class Menu:
    name: str
    options: Sequence[str]


def menus(views: Sequence[View]) -> list[Menu]:
    """A menu for each field of FILTERS that has several values among all planned runs."""
    found = []
    for name in FILTERS:
        attributes = [filter_attributes(view.all_cells, [name]).get(name, "") for view in views]
        options = {value for attribute in attributes for value in attribute.strip("|").split("|")} - {""}
        if len(options) > 1:
            found.append(Menu(name, sorted(options)))
    return found
