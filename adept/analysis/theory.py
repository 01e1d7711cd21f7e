"""The first layer's attention of several adapters: measures, table and figure (results/tables/theory.*)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from adept.analysis.attention import FILLER_TOKENS, measure_attention
from adept.base.paths import ROOT
from adept.config.identities import model_label
from adept.config.run import RunConfig
from adept.data.dataset import load_data
from adept.models.families import random_t5
from adept.serving.load import load
from adept.tables.report import MISSING
from adept.tables.table_file import load_table
from adept.training.session import Session, open_session

RANDOM = "random"
"""The origin of measures that come from no trained adapter."""


def quickstart_configs(**overrides) -> list[RunConfig]:
    """The runs of configs/quickstart.yaml whose method has a prompt."""
    table = load_table(ROOT / "configs" / "quickstart.yaml", overrides)
    return [run.config for run in table.runs() if run.config.method_options.virtual_tokens]


def open_theory_sessions(adapters: Sequence[str], places: Mapping[str, str]) -> Iterator[tuple[str, Session]]:
    """Yields (origin, session in fp32): first the trained adapters, then the quickstart's methods on a random T5.

    On the random T5, prompts are embeddings of tokens and offsets are drawn from a normal distribution.
    places: RunConfig fields of folders and of the device. Raises UserError for an adapter that does not exist.
    """
    for name in adapters:
        session = load(name, precision="fp32", **places)
        yield name, session
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "random-t5"
        random_t5(folder, session.codec.tokenizer)
        for config in quickstart_configs(model=str(folder), precision="fp32", **places):
            session = open_session(config)
            offset = session.prompted_embedding.offset
            for parameter in offset.parameters() if offset is not None else ():
                torch.nn.init.normal_(parameter, std=0.3)
            yield RANDOM, session


def measure_theory(adapters: Sequence[str], row_count: int, places: Mapping[str, str]) -> dict:
    """Measures adapters, the random T5's methods and each frozen model on the first test rows of their task.

    Returns {"texts", "moved_by", "rows": [{"model", "method", "from", and what `measure_attention` returns}]}.
    """
    rows: list[dict] = []
    for origin, session in open_theory_sessions(adapters, places):
        texts = [example.source for example in load_data(session.task, session.config).test[:row_count]]
        model = model_label(session.config.model)
        if model not in {row["model"] for row in rows}:
            frozen = measure_attention(session, texts, adapted=False)
            rows.append({"model": model, "method": "frozen model", "from": None, **frozen})
        measures = measure_attention(session, texts)
        rows.append({"model": model, "method": session.config.method, "from": origin, **measures})
    return {"texts": len(texts), "moved_by": FILLER_TOKENS, "rows": rows}


def theory_markdown(theory: dict) -> str:
    """The table of theory.json with its caption."""
    lines = [
        f"**First-layer attention, {theory['texts']} texts**",
        "",
        "| model | method | change: mean (max) | change when moved: mean (max) "
        "| attention to the prompt: mean ± std (min to max) | mixture | size of the offset | its change when moved |",
        "|" + "---|" * 8,
    ]
    lines += [f"| {' | '.join(theory_cells(row))} |" for row in theory["rows"]]
    trained = [row for row in theory["rows"] if row["from"] not in (None, RANDOM)]
    adapters = ", ".join(f"{row['method']} {row['from']}" for row in trained)
    undefined = sum(row[name]["undefined"] for row in theory["rows"] for name in ("change", "moved"))
    note = f"; {undefined} distances are not defined because the prompt takes all attention." if undefined else "."
    lines += [
        "",
        "Change: total variation distance (0 to 1) between a query's attention over the content, renormalised, and the "
        f"frozen model's; when moved: between the same and that with {theory['moved_by']} meaningless tokens before "
        "the text. Attention to the prompt: the coefficient of Eq. 6's bias, ± over a head's queries; mixture: "
        "distance of a query's attention among the prompt's tokens from its head's mean. Offset: mean norm over the "
        f"embeddings' mean norm; its change over its own. All heads, all queries but a text's first{note}",
        f"Adapters: {adapters}. random-t5: one layer of random weights, prompts of tokens' embeddings, random offsets.",
    ]
    return "\n".join(lines) + "\n"


def theory_cells(row: dict) -> list[str]:
    """The cells of one row of the table."""

    def number(value: float | None) -> str:
        return MISSING if value is None else f"{value:.2g}"

    change, moved, prompt, prompt_cell, mixture_cell = row["change"], row["moved"], row.get("prompt"), MISSING, MISSING
    if prompt:
        spread, bounds = number(np.mean(prompt["spreads"])), f"{number(prompt['min'])} to {number(prompt['max'])}"
        prompt_cell, mixture_cell = f"{number(prompt['mean'])} ± {spread} ({bounds})", number(row["mixture"]["mean"])
    return [
        row["model"],
        row["method"],
        f"{number(change['mean'])} ({number(change['max'])})",
        f"{number(moved['mean'])} ({number(moved['max'])})",
        prompt_cell,
        mixture_cell,
        number(row.get("offset_size")),
        number(row.get("offset_moved")),
    ]


def draw_theory(theory: dict, path: Path) -> None:
    """Draws the measures by head into an image file.

    A row of panels for each model: change, change when moved, attention to the prompt.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in theory["rows"]))
    panels = {
        "change": "change against the frozen model",
        "moved": f"change when moved by {theory['moved_by']} tokens",
        "prompt": "attention to the prompt, ± std over queries",
    }
    size = (13, 0.6 + 3.2 * len(models))
    figure, axes = plt.subplots(len(models), len(panels), figsize=size, squeeze=False, layout="constrained")
    for line, model in zip(axes, models, strict=True):
        rows = [row for row in theory["rows"] if row["model"] == model]
        for axis, (measure, title) in zip(line, panels.items(), strict=True):
            for number, row in enumerate(rows):
                is_zero = measure == "change" and row["from"] is None  # the frozen model against itself
                if measure in row and not is_zero:
                    heads = np.arange(len(row[measure]["heads"])) + 0.14 * (number - 1.5)
                    spread = row[measure]["spreads"] if measure == "prompt" else None
                    style = {"fmt": "o", "markersize": 5, "color": f"C{number}", "label": row["method"]}
                    axis.errorbar(heads, row[measure]["heads"], spread, **style)
            heads = range(len(rows[0]["change"]["heads"]))
            axis.set(title=title if model == models[0] else "", xlabel="head", xticks=heads)
            if measure != "prompt":
                axis.set(yscale="log", ylim=(1e-8, 2))
            axis.grid(alpha=0.3)
        line[0].set_ylabel(f"{model}\ntotal variation distance")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside upper center", ncols=len(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
