"""A table's YAML file + run records -> Markdown table and learning curves. No number is printed that no record holds.

python -m adept.report configs/quickstart.yaml [--FIELD VALUE ...]     the same fields that the sweep was started with

Writes RESULTS_DIR/tables/<table>.md, and .png where runs were evaluated more than once, and prints the table.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from adept import results
from adept.config import RunConfig, UserError, command_line, parse
from adept.sweep import Table, load_table
from adept.tasks import task_of

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """What is printed at one row and column: the configuration chosen by validation, its records (one a seed)."""

    records: list[dict]
    metric: str
    missing: int

    def text(self, *, named: bool = False) -> str:
        """ "mean ± std (n)" of the test metric, ± from two seeds on; named: the metric's name behind it."""
        if not self.records:
            return MISSING
        scores = [record["test"][self.metric] for record in self.records]
        spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        return f"{statistics.mean(scores):.1f}{spread} ({len(scores)})" + (f" {self.metric}" if named else "")


def choose(configs: list[RunConfig]) -> Cell:
    """Groups a cell's runs by everything but the seed and takes the group with the best mean validation score.

    Only groups whose every seed is there can be chosen, unless none is complete.
    """
    groups: dict[tuple, list[dict | None]] = {}
    for config in configs:
        key = tuple((name, value) for name, value in asdict(config).items() if name != "seed")
        groups.setdefault(key, []).append(results.find(config.results_dir, config.run_id))
    missing = sum(record is None for records in groups.values() for record in records)
    whole = [records for records in groups.values() if None not in records]
    candidates = whole or [present for records in groups.values() if (present := [r for r in records if r])]
    metric = task_of(configs[0]).reported
    select_on = configs[0].select_on
    # Where nothing validates (MBPP), no choice can be made: the first configuration stays.
    best = max(candidates, key=lambda records: statistics.mean(r["validation"].get(select_on, 0) for r in records), default=[])
    return Cell(best, metric, missing)


def layout(table: Table) -> dict[str, dict[str, Cell]]:
    """{row: {column: Cell}} in the order of the grid."""
    cells: dict[str, dict[str, list[RunConfig]]] = {}
    for config in table.configs:
        row, column = str(getattr(config, table.rows)), str(getattr(config, table.columns))
        cells.setdefault(row, {}).setdefault(column, []).append(config)
    return {row: {column: choose(configs) for column, configs in columns.items()} for row, columns in cells.items()}


def column_metrics(cells: dict[str, dict[str, Cell]]) -> dict[str, str | None]:
    """{column: the metric it prints, or None where its rows print different ones}, in the order of the grid."""
    found: dict[str, set[str]] = {}
    for row in cells.values():
        for column, cell in row.items():
            found.setdefault(column, set()).add(cell.metric)
    return {column: names.pop() if len(names) == 1 else None for column, names in found.items()}


def markdown(table: Table) -> str:
    """The table with its heading, what was overridden, notes of its records, and the number of missing runs."""
    cells = layout(table)
    metrics = column_metrics(cells)
    columns = list(metrics)
    heading = [f"{column} ({metric})" if metric else column for column, metric in metrics.items()]
    lines = [f"**{table.title}**", ""]
    changed = {name: value for name, value in table.overrides.items() if name != "results_dir"}
    if changed:
        lines += ["Changed for all runs: " + ", ".join(f"{name} = {value}" for name, value in changed.items()) + ".", ""]
    lines += [f"| {table.rows} | trained parameters | " + " | ".join(heading) + " |", "|" + "---|" * (len(columns) + 2)]
    notes: dict[str, None] = {}
    for row, by_column in cells.items():
        records = [record for cell in by_column.values() for record in cell.records]
        counts = sorted({record["trainable_params"] for record in records})
        counted = " / ".join(f"{count:,}" for count in counts) or MISSING
        texts = [by_column[c].text(named=metrics[c] is None) if c in by_column else MISSING for c in columns]
        lines.append(f"| {row} | {counted} | " + " | ".join(texts) + " |")
        notes |= dict.fromkeys(f"{record['config']['task']}: {note}" for record in records for note in record["notes"])
    lines += ["", "Test score in percent of the checkpoint that was best on validation: mean ± std (number of seeds)."]
    lines += [table.note] if table.note else []
    compared = [r["scoring_agreement"] for row in cells.values() for c in row.values() for r in c.records if "scoring_agreement" in r]
    if compared:
        rows, same = sum(entry["rows"] for entry in compared), sum(entry["rows"] * entry["agreement"] for entry in compared)
        shares = sorted(entry["agreement"] for entry in compared)
        lines.append(
            f"Greedy generation and label likelihood predict the same on {same / rows:.1f}% of {rows:,} test rows "
            f"({shares[0]:.1f}% to {shares[-1]:.1f}% a run)."
        )
    lines += [f"Note: {note}." for note in notes]
    missing = sum(cell.missing for row in cells.values() for cell in row.values())
    if missing:
        lines.append(f"{missing} of {len(table.configs)} runs are missing ({MISSING}).")
    return "\n".join(lines) + "\n"


def curves(table: Table, path: Path) -> None:
    """Learning curves of the chosen runs: validation score over steps, a panel for each column, untrained rows as a level."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cells = layout(table)
    metrics = column_metrics(cells)
    columns = list(metrics)
    figure, axes = plt.subplots(1, len(columns), figsize=(1.5 + 4 * len(columns), 3.6), squeeze=False, layout="constrained")
    for axis, column in zip(axes[0], columns, strict=True):
        for number, (row, by_column) in enumerate(cells.items()):
            for seed, record in enumerate(by_column[column].records if column in by_column else []):
                metric = by_column[column].metric
                points = [(entry["step"], entry["validation"][metric]) for entry in record["history"] if entry["validation"]]
                style = {"color": f"C{number}", "label": row if seed == 0 else None}
                if len(points) > 1:
                    axis.plot(*zip(*points, strict=True), marker="o", markersize=3, **style)
                elif points:
                    axis.axhline(points[0][1], linestyle="--", **style)
        axis.set(title=column, xlabel="step", ylabel=f"validation {metrics[column] or 'score'} (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments: list[str]) -> int:
    parser = command_line(__doc__, config_file=False)
    parser.add_argument("table", type=Path, help="configs/<table>.yaml")
    try:
        overrides, rest = parse(parser, arguments)
        table = load_table(rest.table, overrides)
        text = markdown(table)
        folder = Path(table.configs[0].results_dir) / "tables"
        results.write_atomically(folder / f"{table.name}.md", text)
        drawn = ""
        if any(len(r["history"]) > 1 for row in layout(table).values() for cell in row.values() for r in cell.records):
            curves(table, folder / f"{table.name}.png")
            drawn = f"\ncurves:  {folder / table.name}.png"
        print(f"\n{text}\ntable:   {folder / table.name}.md{drawn}\nrecords: {folder.parent / 'runs'}/")
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
