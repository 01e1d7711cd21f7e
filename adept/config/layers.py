"""From flags and YAML layers to a RunConfig.

Layers, later ones win: the options' defaults < configs/base.yaml < configs/protocol/<protocol>.yaml < --config FILE <
flags. A YAML layer is a mapping of option names. A key that begins with "@" opens a block that applies only to some
runs: "@pt" (a method), "@rte" (a task), "@large" or "@glue" (a task group), "@smollm2-135m" (a model), or several words
that must all match ("@dept @mrqa"). Blocks apply in the order written, after the layer's plain keys.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adept.base import paths
from adept.base.errors import UserError, nearest
from adept.base.options import Options, check_option, default_of, option_type, path_beside
from adept.base.yaml_files import read_own_yaml, read_yaml
from adept.config.combinations import check_combination
from adept.config.identities import model_label
from adept.config.other_names import suggest
from adept.config.run import (
    METHOD_OPTIONS,
    OPTIONS,
    TASK_OPTIONS,
    RunConfig,
    all_owners,
    default_warmup,
    no_effect,
)
from adept.methods import METHODS, find_method
from adept.methods.method import Method
from adept.models.families import ALIASES, BUNDLED, TINY
from adept.tasks import GROUPS, TASKS, find_task
from adept.tasks.task import Task


def resolve(flags: Mapping[str, Any], config_file: str | None = None, *, source: str = "command line") -> RunConfig:
    """The full RunConfig of a run from its flags (or a table's fields, named by `source`) and all layers below them.

    Raises UserError for unknown names, bad values, an option that the method or the task does not have, and a required
    value left empty.
    """
    for key in flags:
        check_key(key, source)
    user_layer = with_paths(read_yaml(Path(config_file)), Path(config_file).parent) if config_file else {}
    chosen = {
        name: flags.get(name, user_layer.get(name, default_of(OPTIONS[name])))
        for name in ("task", "task_file", "method", "model", "protocol")
    }
    method, task = find_method(check_option(RunConfig, "method", chosen["method"])), chosen_task(chosen)
    model = check_option(RunConfig, "model", chosen["model"])
    tags = {task.name, *task.groups, method.name, model, model_label(model)}

    values: dict[str, Any] = {}
    for path in (paths.ROOT / "configs" / "base.yaml", protocol_file(chosen["protocol"])):
        apply_layer(values, read_own_yaml(path), tags, path.name, method, task)
    given: dict[str, Any] = {}
    apply_layer(given, user_layer, tags, str(config_file), method, task)
    given.update(flags)
    values.update(given)
    values.update(task=task.name, method=method.name)

    own = {*RunConfig.own_options(), *method.own_options(), *task.options.own_options()}
    for name in sorted(given.keys() - own):
        if given[name] is not None:
            line = no_effect(name, method, task.name, type(task.options))
            if name not in flags:
                block = f'"@{owner_tag(name)}": {{{name}: {given[name]}}}'
                line = f"{config_file}: {line}; in a file that several runs share, write {block}"
            raise UserError(line)
    lengths = [name for name in ("steps", "epochs") if given.get(name) is not None]
    if not method.rates and lengths:
        raise UserError(f"--{lengths[0]} has no effect on method '{method.name}', which trains nothing")
    if len(lengths) == 2:
        raise UserError(f"--steps {given['steps']} and --epochs {given['epochs']} both say how long to train; give one")
    if "epochs" in lengths:
        values.pop("steps", None)  # adept/data/dataset.py counts them
    values = {name: value for name, value in values.items() if name in own}
    fill_defaults(values, given, method, task)
    config = RunConfig.from_flat(values, type(task.options))
    if not config.method_options.rates:
        config = config.replace(steps=0)
    filled = config.method_options.with_source_length(config.max_source_len)
    config = config if filled is config.method_options else config.replace(**filled.model_dump())
    check_combination(config, task)
    return config


def chosen_task(chosen: Mapping[str, Any]) -> Task:
    """The task that the flags name. Raises UserError where they name none, or two."""
    if (file := chosen["task_file"]) is not None:
        from adept.tasks.custom import read_task

        task = read_task(Path(check_option(RunConfig, "task_file", file)))
        if task.name in known_tags():  # configs/ would take it for what bears that name
            raise UserError(
                f"task file {file}: 'name' is '{task.name}', which is a task, task group, method or model already; "
                "choose another"
            )
        if chosen["task"] not in (None, task.name):
            name = check_option(RunConfig, "task", chosen["task"])
            raise UserError(
                f"--task {name} and --task_file {file}, whose name is '{task.name}', are two tasks; give one"
            )
        return task
    if chosen["task"] is None:
        raise UserError("--task is missing, for example --task rte")
    return find_task(check_option(RunConfig, "task", chosen["task"]))


def protocol_file(name: Any) -> Path:
    """configs/protocol/<name>.yaml. Raises UserError for an unknown protocol."""
    name = check_option(RunConfig, "protocol", name)
    files = {path.stem: path for path in (paths.ROOT / "configs" / "protocol").glob("*.yaml")}
    if name not in files:
        raise UserError(f"unknown protocol '{name}'; {nearest(name, files)}")
    return files[name]


def fill_defaults(values: dict[str, Any], given: Mapping[str, Any], method: type[Method], task: Task) -> None:
    """Sets the values that depend on others, where nobody gave them."""
    if values.get("few_shot") is None:
        if given.get("few_shot_rule") is not None:
            raise UserError("--few_shot_rule has no effect without --few_shot")
        values["few_shot_rule"] = None
    for name, default in (("max_source_len", task.max_source_len), ("select_on", task.metrics[0])):
        values[name] = default if values.get(name) is None else values[name]
    values.setdefault("targets", task.targets)
    if values["select_on"] not in task.metrics:
        raise UserError(
            f"--select_on '{values['select_on']}' is not a metric of {task.name}: {', '.join(task.metrics)}"
        )
    if values.get("warmup_steps") is None and values.get("epochs") is None:  # else with_steps() knows
        steps = values.get("steps", default_of(OPTIONS["steps"])) if method.rates else 0
        values["warmup_steps"] = default_warmup(check_option(RunConfig, "steps", steps))


# Layers ---------------------------------------------------------------------------------------------------------------


def apply_layer(
    values: dict, layer: Mapping[str, Any], tags: set[str], source: str, method: type[Method], task: Task
) -> None:
    """Writes one layer into `values`: plain keys, then the "@" blocks whose words are all in `tags`."""
    blocks = []
    for key, value in layer.items():
        if isinstance(key, str) and key.startswith("@"):
            if not isinstance(value, Mapping):
                raise UserError(f"{source}: '{key}' must hold 'field: value' lines")
            blocks.append((key, value))
        else:
            values[key] = layer_value(key, value, source, method, task)
    for key, block in blocks:
        words = {word.removeprefix("@") for word in key.split()}
        if unknown := words - known_tags() - tags:
            raise UserError(
                f"{source}: '{key}' names no method, task, group or model; {nearest(min(unknown), known_tags())}"
            )
        block = {name: layer_value(name, value, f"{source}, {key}", method, task) for name, value in block.items()}
        if words <= tags:
            values.update(block)


def layer_value(key: Any, value: Any, source: str, method: type[Method], task: Task) -> Any:
    """An option's value as a file has it, in the option's type. Raises UserError that names the file."""
    check_key(key, source)
    owner = owner_of(key, method, type(task.options))
    if value is None and (
        key in METHOD_OPTIONS | TASK_OPTIONS or option_type(owner.model_fields[key].annotation).optional
    ):
        return None  # of another method's option: not given; of this one's: from_flat() says that it is needed
    try:
        return check_option(owner, key, value)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def with_paths(content: Mapping[Any, Any], folder: Path) -> dict[Any, Any]:
    """Options as a file in `folder` means them: relative paths begin there, in lists and in "@" blocks, too."""

    def meant(name: Any, value: Any) -> Any:
        if isinstance(value, Mapping):
            return with_paths(value, folder)
        if isinstance(value, list):
            return [meant(name, entry) for entry in value]
        return path_beside(OPTIONS[name], value, folder) if name in OPTIONS else value

    return {name: meant(name, value) for name, value in content.items()}


def set_for_model(config: RunConfig, flags: Mapping[str, Any]) -> dict[str, Any]:
    """{option: value} of what configs/base.yaml sets for the run's model, and neither its flags nor its method undo."""
    task = chosen_task(config.flat())
    model = {config.model, model_label(config.model)}
    tags = {task.name, *task.groups, config.method, *model}
    found: dict[str, Any] = {}
    for key, block in read_own_yaml(paths.ROOT / "configs" / "base.yaml").items():
        words = {word.removeprefix("@") for word in key.split()} if key.startswith("@") else set()
        if words & model and words <= tags:
            found |= {name: config.get(name) for name in block if name not in flags and config.get(name) is not None}
    return found


def owner_tag(name: str) -> str:
    """What an "@" block is called that holds this option of a method or a task: the first one that has it."""
    owners = [method.name for method in METHODS.values() if name in method.own_options()]
    owners += [task.name for task in TASKS.values() if name in task.options.own_options()]
    return owners[0]


def owner_of(name: str, *preferred: type[Options]) -> type[Options]:
    """The class whose option that is: of several, one of the preferred ones, else the first."""
    return next(owner for owner in (*preferred, *all_owners()) if name in owner.own_options())


def check_key(key: Any, source: str) -> None:
    if key not in OPTIONS:
        raise UserError(f"{source}: unknown field '{key}'; {suggest(str(key), OPTIONS)}")


@functools.cache
def known_tags() -> frozenset[str]:
    """What an "@" block may name, besides the run's own model."""
    return frozenset({*METHODS, *TASKS, *GROUPS, *ALIASES, BUNDLED, *TINY})
