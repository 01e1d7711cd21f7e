"""Reads a table's YAML file, with a profile, into a Table. The keys of the file:

title, note      the heading, and a line below the table
fields           options of all runs
grid             a list of entries. A list as the value of an option stands for one run of each value. An entry holds
                 options and these keys:
  cases          a list of {option: value}: options that vary together (a prompt length and its bottleneck)
  name           what other entries call this one
  from           the name of an entry above. The runs of this entry start from its best runs by validation, one of each
                 cell and seed: they take over options and weights (--init_from) and do not train unless `steps` is set
  show           false: the runs are not printed
  quantities     in place of the table's
seeds            the grid is searched with the first seed; the configuration that validation chooses for a cell runs
                 again with each of the others, unless it trains nothing
order            the options (one or several) by whose values the runs are carried out: all runs of the first value come
                 first [entry by entry]
rows, columns    the options (one or several) that the table is laid out by; "quantity" stands for `quantities`
quantities       what a cell prints: "score" (the metric that the task reports), the name of another metric, or a
                 quantity of adept/tables/report.py
timed            {option: value}: the times and memory among `quantities` are those of a further run of each cell, with
                 these options, the cell's first configuration and the first seed, and the others may share a GPU
means            {title: tasks}: a column with the mean over these tasks
labels           {value: what is printed in its place}
remarks          {heading of a row or column, or a method as the paper prints it: what its numbers do not say}
compare_with     {option: value} of the cells that the paired test compares the others with [{method: adept}]

Relative paths begin at the file's folder.

A profile (configs/profiles/NAME.yaml) makes a table smaller: its `fields` override those of all runs, its `models` name
the model that runs in place of another, `search` is the number of configurations that stay, `seeds` that of seeds (as
many as configurations where it is left out), and its `labels` are added. `gpu` holds further fields for runs on a GPU,
`cpu_bf16` for runs on a CPU with bf16 arithmetic. The printed table says what was changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from adept.base import paths
from adept.base.errors import UserError, nearest
from adept.base.options import check_option, default_of
from adept.base.validation import FileContent, line_error, validate
from adept.base.yaml_files import read_yaml
from adept.config.layers import owner_of, with_paths
from adept.config.run import OPTIONS
from adept.tables.table import QUANTITY, GridEntry, Table, expand
from adept.tasks import task_names


class TableFile(FileContent):
    """The keys of a table file."""

    may_be_empty = frozenset(
        {
            *("note", "fields", "seeds", "order", "rows", "columns", "quantities"),
            *("means", "labels", "remarks", "compare_with"),
        }
    )

    title: str
    note: str = ""
    fields: dict[Any, Any] = Field(default_factory=dict)
    grid: list[Any]
    seeds: list[Any] = Field(default_factory=list)
    order: str | list[Any] = Field(default_factory=list)
    rows: str | list[Any] = "method"
    columns: str | list[Any] = "task"
    quantities: list[Any] = Field(default_factory=lambda: ["score"])
    timed: dict[Any, Any] = Field(default_factory=dict)
    means: dict[Any, Any] = Field(default_factory=dict)
    labels: dict[Any, Any] = Field(default_factory=dict)
    remarks: dict[str, str] = Field(default_factory=dict)
    compare_with: dict[Any, Any] = Field(default_factory=lambda: {"method": "adept"})

    @field_validator("seeds", "order", "rows", "columns", "quantities")
    @classmethod
    def _holds_single_values(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, list) and any(isinstance(entry, list | dict) for entry in value):
            raise line_error(f"'{info.field_name}' must be a list of single values, not {value!r:.80}")
        return value

    @field_validator("order", "rows", "columns")
    @classmethod
    def _names_options(cls, value: str | list, info: ValidationInfo) -> str | list:
        known = [*OPTIONS] if info.field_name == "order" else [*OPTIONS, QUANTITY]
        for axis in _as_list(value):
            if axis not in known:
                raise line_error(f"'{axis}' is no option of runs; {nearest(str(axis), known)}")
        return value

    @model_validator(mode="after")
    def _compares_along_its_axes(self) -> Self:
        axes = [*_as_list(self.rows), *_as_list(self.columns)]
        for name in self.compare_with if "compare_with" in self.model_fields_set else ():
            if name not in axes:
                raise line_error(
                    f"'compare_with: {name}' is neither in rows nor in columns; {nearest(str(name), axes)}"
                )
        return self

    @field_validator("means")
    @classmethod
    def _lists_tasks(cls, value: dict) -> dict:
        for name, tasks in value.items():
            if not isinstance(tasks, list):
                raise line_error(f"'means: {name}' must be a list of tasks, not {tasks!r:.80}")
        return value


def _as_list(axes: str | list) -> list:
    return [axes] if isinstance(axes, str) else axes


class EntryContent(BaseModel):
    """An entry of the grid: its own keys, and options of runs."""

    model_config = ConfigDict(extra="allow", strict=True)

    cases: list[Any] = Field(default_factory=lambda: [{}])
    name: str | None = None
    start: str | None = Field(None, alias="from")
    show: bool = True
    quantities: list[Any] | None = None

    @field_validator("cases")
    @classmethod
    def _holds_mappings(cls, value: list) -> list:
        if not all(isinstance(case, dict) for case in value):
            raise line_error(f"'cases' must be a list of {{option: value}}, not {value!r}")
        return value


class Profile(FileContent):
    """The keys of a profile."""

    may_be_empty = frozenset({"note", "fields", "models", "labels", "gpu", "cpu_bf16"})

    note: str = ""
    fields: dict[str, Any] = Field(default_factory=dict)
    gpu: dict[str, Any] = Field(default_factory=dict)
    cpu_bf16: dict[str, Any] = Field(default_factory=dict)
    models: dict[str, str] = Field(default_factory=dict)
    search: int | None = None
    seeds: int | None = None
    labels: dict[str, Any] = Field(default_factory=dict)


def load_table(path: Path, overrides: Mapping[str, Any], profile: str | None = None, only: Sequence[str] = ()) -> Table:
    """Reads a table file and, where `profile` names one, a profile. overrides: options of all runs, by name.

    only: "option=value" texts; of the table's runs, those with one of the values of each option are taken.

    Raises UserError for unknown keys and values of the wrong type. Table.runs() raises it for runs that do not resolve.
    """
    content = validate(TableFile, read_yaml(path), str(path))
    smaller = read_profile(profile, str(overrides.get("device", "auto"))) if profile else Profile()
    rows, columns = (tuple(_as_list(axes)) for axes in (content.rows, content.columns))
    grid: list[GridEntry] = []
    for entry in content.grid:
        grid.append(read_entry(entry, grid, path))
    fields, seeds = with_paths(content.fields, path.parent), content.seeds
    if smaller.search is not None:
        axes = {*rows, *columns}
        fields = shrink(GridEntry(fields), smaller.search, axes).fields
        grid = [shrink(entry, smaller.search, axes if entry.shown else set()) for entry in grid]
        seeds = seeds[: smaller.search if smaller.seeds is None else smaller.seeds]
    means = {name: itertools.chain(*(task_names(str(task)) for task in tasks)) for name, tasks in content.means.items()}
    return Table(
        path=str(path),
        title=content.title,
        note=" ".join(filter(None, (content.note, smaller.note))),
        fields=fields,
        grid=grid,
        rows=rows,
        columns=columns,
        seeds=tuple(seeds),
        order=tuple(_as_list(content.order)),
        quantities=tuple(content.quantities),
        timed={str(name): option_value(str(name), value, f"{path}: timed") for name, value in content.timed.items()},
        means={name: tuple(tasks) for name, tasks in means.items()},
        labels={str(value): str(label) for value, label in {**content.labels, **smaller.labels}.items()},
        remarks=content.remarks,
        overrides=overrides,
        compare_with={name: option_value(name, value, str(path)) for name, value in content.compare_with.items()},
        only=read_only(only),
        profile=profile,
        profile_fields=smaller.fields,
        profile_models=smaller.models,
    )


def option_value(name: str, value: Any, where: str) -> Any:
    """The value in the option's type. Raises UserError that begins with `where`."""
    if name == QUANTITY:
        return value
    try:
        return check_option(owner_of(name), name, value)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def read_only(words: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """{option: values} of the command line's --only words. Raises UserError for one of another form."""
    only: dict[str, tuple[Any, ...]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in OPTIONS:
            raise UserError(f"--only {word}: it looks like --only task=rte; {nearest(name, OPTIONS)}")
        values = task_names(text) if name == "task" and text.startswith("@") else [option_value(name, text, "--only")]
        only[name] = (*only.get(name, ()), *values)
    return only


def read_entry(content: Any, above: Sequence[GridEntry], path: Path) -> GridEntry:
    """One entry of the grid of the file. above: the entries before it.

    Raises UserError for a wrong key, value or start.
    """
    where = str(path)
    if not isinstance(content, dict):
        raise UserError(f"{where}: each entry of 'grid' must hold {{option: value}}, not {content!r}")
    entry = validate(EntryContent, {str(key): value for key, value in content.items()}, where)
    names = [other.name for other in above if other.name]
    if entry.start is not None and entry.start not in names:
        raise UserError(f"{where}: 'from: {entry.start}' names no entry above it; {nearest(entry.start, names)}")
    quantities = None if entry.quantities is None else tuple(entry.quantities)
    fields, cases = (with_paths(part, path.parent) for part in (entry.model_extra, {"cases": entry.cases}))
    return GridEntry(fields, cases["cases"], entry.name, entry.start, entry.show, quantities)


def read_profile(name: str, device: str = "auto") -> Profile:
    """Reads configs/profiles/<name>.yaml; its `fields` are those for runs on this --device of this machine.

    Raises UserError for an unknown profile and for a wrong key or value.
    """
    path = paths.ROOT / "configs" / "profiles" / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in path.parent.glob("*.yaml")]
        raise UserError(f"unknown profile '{name}'; {nearest(name, known)}")
    smaller = validate(Profile, read_yaml(path), str(path))
    fields = {**smaller.fields, **machine_fields(smaller, device)}
    return smaller.model_copy(update={"fields": with_paths(fields, path.parent)})


def machine_fields(profile: Profile, device: str) -> dict[str, Any]:
    """The profile's further fields for this machine. device: --device."""
    if not (profile.gpu or profile.cpu_bf16):
        return {}
    import torch

    from adept.models.precision import cpu_computes_bf16

    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return profile.gpu
    return profile.cpu_bf16 if device in ("auto", "cpu") and cpu_computes_bf16() else {}


def profile_flags(name: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a profile gives a single run, among them the model that it runs in place of another.

    What the run's flags give stays, and what its method or task does not have is left out. Raises UserError as
    read_profile() does, and for an unknown method or task.
    """
    profile = read_profile(name, str(flags.get("device", "auto")))
    (own,) = expand({**profile.fields, **flags}, {}, f"profile {name}")
    found = {option: own[option] for option in profile.fields.keys() & own.keys() - flags.keys()}
    model = flags.get("model", default_of(OPTIONS["model"]))
    return {**found, "model": profile.models[model]} if model in profile.models else found


def shrink(entry: GridEntry, search: int | None, axes: set[str]) -> GridEntry:
    """The entry with fewer configurations: the first `search` cases, and the first value of each list of values.

    An entry without cases keeps `search` values of its first list instead. axes: the options that the table is laid out
    by, which keep all their values.
    """
    cases, fields = entry.cases, {}
    if list(cases) != [{}] and not any(axes & case.keys() for case in cases):
        cases, search = cases[:search], 1
    for name, value in entry.fields.items():
        fields[name] = value
        if isinstance(value, list) and name not in axes:
            fields[name], search = value[:search], 1
    return replace(entry, fields=fields, cases=cases)


def check_overrides(tables: list[Table]) -> None:
    """Raises UserError for an option of the command line that no run has, and where --only leaves no run."""
    runs = [run for table in tables for run in table.runs()]
    files = ", ".join(table.path for table in tables)
    if tables[0].only and not any(run.shown for run in runs):
        words = ", ".join(f"{name}={value}" for name, values in tables[0].only.items() for value in values)
        every = [run for table in tables for run in replace(table, only={}).runs() if run.shown]
        there = [
            f"{name}: {', '.join(sorted({str(run.config.get(name)) for run in every}))}" for name in tables[0].only
        ]
        raise UserError(f"--only {words} leaves no run of {files}, whose runs have {'; '.join(there):.300}")
    used = {name for run in runs for name in run.flags}
    for name, value in tables[0].overrides.items():
        if name not in used:
            raise UserError(f"--{name} {value} has no effect on any run of {files}")
