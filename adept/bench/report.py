"""From measurements to NAME.json and NAME.md: merging, the projection to the paper's grids, Markdown tables."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from adept.base.atomic_files import write_atomically
from adept.base.marked_blocks import write_block
from adept.base.numbers import three_digits
from adept.bench.memory import COUNTED_ROWS, GPU_BYTES
from adept.bench.profiles import GRIDS, PROFILES, STEPS_PER_CYCLE, STYLES
from adept.runs.provenance import git_state, package_version
from adept.tables.report import MISSING

MEMORY_CAPTION = (
    f"Memory of a training step of ADePT, {COUNTED_ROWS} rows of the longest kind: a count, not a measurement "
    "(adept/bench/memory.py). Saved: what the forward pass keeps for the backward pass; logits: one copy in fp32; "
    "peak: all that is alive at the step's worst moment, weights and optimizer apart."
)

# Results --------------------------------------------------------------------------------------------------------------


def describe_machine(device: torch.device) -> dict:
    """The device, the versions and the commit with which the figures were measured."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
        models = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        model = next(models, platform.processor())
        name = f"{os.cpu_count()} CPU cores ({model}, {torch.backends.cpu.get_cpu_capability()})"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": package_version("transformers"),
        **git_state(),
    }


def merge_results(old: dict, new: dict) -> dict:
    """The new measurements, and those old ones that were not repeated."""

    def merge_rows(part: str, key: tuple[str, ...]) -> list[dict]:
        rows = new.get(part, [])
        repeated = {tuple(row.get(k) for k in key) for row in rows}
        return [row for row in old.get(part, []) if tuple(row.get(k) for k in key) not in repeated] + rows

    runs = merge_rows("runs", ("model", "profile", "method", "style"))
    return {
        "machine": new["machine"],
        "rows": merge_rows("rows", ("model", "profile", "method", "style")),
        **({"runs": runs} if runs else {}),
        "inference": merge_rows("inference", ("model", "profile", "contestant")),
        "adapters": merge_rows("adapters", ("model", "adapters", "new_tokens")),
        "memory": merge_rows("memory", ("model", "task", "precision", "checkpointed")),
    }


def save_performance(name: str, kind: str, result: dict) -> None:
    """Merges a result into NAME.json, and writes its tables into NAME.md.

    kind: the type of the device. For each kind, NAME.json has an entry and NAME.md a pair of marks.
    """
    path = Path(f"{name}.json")
    kinds = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kinds[kind] = merge_results(kinds.get(kind, {}), result)
    write_atomically(path, json.dumps(kinds, indent=1) + "\n")
    write_block(Path(f"{name}.md"), kind, performance_markdown(kinds[kind]), "# Performance")


def project_grids(rows: list[dict]) -> list[dict]:
    """Extrapolated hours of each grid in each style on one device, where the profiles of all tasks were measured."""
    measured = {(row["model"], row["profile"], row["style"]): row for row in rows if "step" in row}
    projected = []
    for table, grid in GRIDS.items():
        for style in STYLES:
            hours: list[float | None] = []
            for part in grid.parts:
                for task in part.tasks:
                    (profile,) = [name for name, profile in PROFILES.items() if task in profile.stands_for]
                    row = measured.get((grid.model, profile, style))
                    steps = part.runs_per_task * part.steps_per_run
                    hours.append(steps * seconds_per_step(row) / 3600 if row else None)
            if None not in hours:
                entry = {"table": table, "model": grid.model, "style": style, "runs": grid.runs, "steps": grid.steps}
                projected.append({**entry, "hours": sum(hours)})
    return projected


def seconds_per_step(row: dict) -> float:
    """Seconds of a step, with its share of the cycle's evaluation where that was measured."""
    return row["cycle"]["seconds"] / STEPS_PER_CYCLE if "cycle" in row else row["step"]["seconds"]


# Markdown -------------------------------------------------------------------------------------------------------------


def performance_markdown(result: dict) -> str:
    """The tables of one device's result."""
    machine, rows = result["machine"], [row for row in result["rows"] if "skipped" not in row]
    lines = [
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"transformers {machine['transformers']}.",
        "",
        *step_table([row for row in rows if "step" in row]),
        *run_table(result.get("runs", [])),
        *evaluation_table([row for row in rows if "eval" in row]),
        *inference_table(result["inference"]),
        *adapters_table(result.get("adapters", [])),
        *projection_table(project_grids(rows)),
    ]
    if result["memory"]:
        lines += [MEMORY_CAPTION, "", *memory_table(result["memory"])]
    lines += [
        f"- {row['model']}, {row['profile']}, {row['style']}: not measured, {row['skipped']}"
        for row in result["rows"]
        if "skipped" in row
    ]
    if any(row.get("clock") == "processor" for row in result["rows"] + result.get("runs", [])):
        lines += ["Processor time in place of wall-clock time: other programs ran on the machine."]
    return "\n".join(lines).strip() + "\n"


def step_table(rows: list[dict]) -> list[str]:
    """The table of training steps."""
    head = ["model", "lengths", "style", "steps/s", "examples/s", "tokens/s", "padding", "utilisation", "operations"]
    cells = []
    for row in rows:
        step = row["step"]
        cells.append([
            row["model"], row["profile"], style_text(row), three_digits(step["steps_per_second"]),
            three_digits(step["examples_per_second"]), f"{step['tokens_per_second']:,.0f}",
            f"{100 * step['padding']:.0f}%", f"{100 * step['utilisation']:.0f}%",
            f"{step['operations']:,}" if step["operations"] else MISSING,
            gigabytes(row["weight_bytes"]), gigabytes(step["memory_bytes"]), speedup_cell(row, "step"),
        ])  # fmt: skip
    return markdown_table([*head, "weights GB", "step GB", "times the first"], cells)


def style_text(row: dict) -> str:
    """ "ours", or with its method where that is not ADePT: "trainer, pt"."""
    return f"{row['style']}, {row['method']}" if "method" in row else row["style"]


def run_table(rows: list[dict]) -> list[str]:
    """The table of whole runs."""
    cells = [
        [
            row["model"], row["profile"], style_text(row), f"{row['steps']:,}", f"{row['evaluated_rows']:,}",
            three_digits(row["run"]["seconds"]), speedup_cell(row, "run"),
        ]
        for row in rows
    ]  # fmt: skip
    head = ["model", "task", "style", "steps", "rows an evaluation", "whole run s", "times the first"]
    return markdown_table(head, cells)


def evaluation_table(rows: list[dict]) -> list[str]:
    """The table of evaluation and of whole cycles."""
    head = ["model", "lengths", "style", "rows", "evaluation s", "rows/s", "same strings", "times the first"]
    cells = []
    for row in rows:
        evaluation = row["eval"]
        share = f"{100 * row['cycle']['evaluation_share']:.1f}%" if "cycle" in row else MISSING
        cells.append([
            row["model"], row["profile"], row["style"], evaluation["rows"], three_digits(evaluation["seconds"]),
            three_digits(evaluation["rows_per_second"]), f"{100 * evaluation['same_strings']:.0f}%",
            speedup_cell(row, "eval"), share, speedup_cell(row, "cycle"),
        ])  # fmt: skip
    return markdown_table([*head, "share of a cycle", "cycle, times the first"], cells)


def inference_table(rows: list[dict]) -> list[str]:
    """The table of predictions per second, by method."""
    cells = []
    for row in rows:
        fold = ""
        if "fold_seconds" in row:
            fold = f"{1000 * row['fold_seconds']:.0f} ms, {row['fold_bytes'] / 1e6:.0f} MB"
        ratio = speedup_text(row["times_first"], "{:.2f}")
        speed = three_digits(row["rows_per_second"])
        cells.append([row["model"], row["profile"], row["contestant"], speed, ratio, fold])
    return markdown_table(["model", "lengths", "method", "rows/s", "times PT 200", "fold"], cells)


def adapters_table(rows: list[dict]) -> list[str]:
    """The table of many adapters on one model."""
    head = ["model", "adapters", "requests", "new tokens", "one after another s", "one batch s", "times faster"]
    cells = [
        [
            row["model"], row["adapters"], row["requests"], row["new_tokens"], three_digits(row["sequential_seconds"]),
            three_digits(row["together_seconds"]), speedup_text(row["times_sequential"], "**{:.2f}**"),
            f"{row['adapter_bytes'] / 1e6:.2f}", f"{row['model_bytes'] / 1e6:,.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    return markdown_table([*head, "an adapter MB", "the model MB"], cells)


def projection_table(entries: list[dict]) -> list[str]:
    """The table of what `project_grids` returns."""
    cells = [[e["table"], e["model"], e["style"], e["runs"], f"{e['steps']:,}", f"{e['hours']:,.0f}"] for e in entries]
    return markdown_table(["grid", "model", "style", "runs", "steps", "hours, extrapolated"], cells)


def memory_table(rows: list[dict]) -> list[str]:
    """The table of counted memory."""
    head = ["model", "task", "precision", "checkpointed", "weights GB", "optimizer MB", "saved GB", "logits GB"]
    cells = [
        [
            row["model"], row["task"], row["precision"], "yes" if row["checkpointed"] else "",
            gigabytes(row["weights_bytes"]), f"{row['optimizer_bytes'] / 1e6:.1f}",
            *(gigabytes(row[f"{part}_bytes"]) for part in ("saved", "logits", "peak", "total")),
            "yes" if row["total_bytes"] <= GPU_BYTES else "no", row["largest_batch"] or "none",
        ]
        for row in rows
    ]  # fmt: skip
    return markdown_table([*head, "peak GB", "all GB", f"fits {GPU_BYTES // 10**9} GB", "largest batch"], cells)


def gigabytes(count: int) -> str:
    """A number of bytes in GB, with two decimals."""
    return f"{count / 1e9:.2f}"


def speedup_cell(row: dict, part: str) -> str:
    """The speed of a part as a multiple of the first style's: "**3.10** (2.90-3.20)", the first style itself "1"."""
    if part not in row:
        return MISSING
    if row["first"] == row["style"]:
        return "1"
    return speedup_text(row[part]["times_first"], "**{:.2f}**")


def speedup_text(ratio: dict[str, float], median_format: str) -> str:
    """A `speedup` (adept/bench/timing.py) as its median and its range."""
    return f"{median_format.format(ratio['median'])} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table and an empty line; no lines if there are no rows."""

    def line(cells: Sequence[object]) -> str:
        return f"| {' | '.join(map(str, cells))} |"

    return [line(head), line(["---"] * len(head)), *map(line, rows), ""] if rows else []
