"""One flag per option, with --help in groups: what every run has, then each method's and each task's own."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from adept.base.errors import UserError
from adept.base.options import Options, default_of, option_type
from adept.config.other_names import suggest
from adept.config.run import OPTIONS, RunConfig
from adept.methods import METHODS
from adept.tasks import ROWS

SECTIONS = {
    "task": "what is run",
    "steps": "optimisation (Appendix E)",
    "max_source_len": "data and evaluation",
    "data_dir": "places and devices (no part of the run's id)",
}
"""Headings of RunConfig's own options, by the first option below each."""


class OneLineParser(argparse.ArgumentParser):
    """argparse whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def command_line(description: str, *, config_file: bool = True, arguments: Iterable[str] = ()) -> OneLineParser:
    """A parser with one flag per option of any run, and --config unless the command has a table file.

    arguments: the command line; with "--help" beside a --method or a --task, only what these have is listed.
    """
    parser = OneLineParser(description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    if config_file:
        parser.add_argument(
            "--config", metavar="FILE", help="YAML file of options, above the protocol and below the flags"
        )
    group: Any = parser
    for name, field in RunConfig.own_options().items():
        if name in SECTIONS:
            group = parser.add_argument_group(SECTIONS[name])
        add_flag(group, name, field, shown_default(default_of(field)))
    words = list(arguments)
    add_groups(parser, "method", {name: method for name, method in METHODS.items()}, value_after("--method", words))
    add_groups(parser, "task", {task.name: type(task.options) for task in ROWS}, value_after("--task", words))
    return parser


def add_rerun(parser: OneLineParser) -> None:
    """Adds --rerun, for commands that find runs finished."""
    parser.add_argument(
        "--rerun",
        action="store_true",
        help="move the record of a finished run aside where its options, data or base model were others, and run again",
    )


def value_after(flag: str, words: list[str]) -> str | None:
    """The value of a flag on a command line, None where it is not there."""
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def add_groups(parser: OneLineParser, kind: str, owners: dict[str, type[Options]], chosen: str | None) -> None:
    """A flag for every option of the owners: those that the same owners have stand in one group.

    chosen: --help lists the options of this owner alone; the others are accepted all the same, so that an error can say
    whose they are.
    """
    names: dict[str, list[str]] = {}
    for owner, options in owners.items():
        for name in options.own_options():
            names.setdefault(name, []).append(owner)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, owned_by in names.items():
        groups.setdefault(tuple(owned_by), []).append(name)
    for owned_by, members in groups.items():
        group = parser.add_argument_group(f"{kind}{'s' if len(owned_by) > 1 else ''} {', '.join(owned_by)}")
        for name in members:
            fields = {owner: owners[owner].own_options()[name] for owner in owned_by}
            listed = chosen not in owners or chosen in owned_by
            if chosen in fields:
                fields = {chosen: fields[chosen]}
            add_flag(group, name, next(iter(fields.values())), differing_defaults(fields), listed=listed)


def differing_defaults(fields: dict[str, FieldInfo]) -> str:
    """ " [60]", or " [100 pt, 60 dept]" where the owners' defaults differ."""
    defaults = {owner: default_of(field) for owner, field in fields.items()}
    if len(set(defaults.values())) == 1:
        return shown_default(next(iter(defaults.values())))
    return f" [{', '.join(f'{value} {owner}' for owner, value in defaults.items())}]"


def shown_default(value: Any) -> str:
    return "" if value is None else f" [{value}]"


def add_flag(group: Any, name: str, field: FieldInfo, default: str, *, listed: bool = True) -> None:
    value_type = option_type(field.annotation)
    alone = {"nargs": "?", "const": "true"} if value_type.kind is bool else {}  # --flag means --flag true
    metavar = "{" + ",".join(map(str, value_type.choices)) + "}" if value_type.choices else value_type.kind.__name__
    text = (field.description + default).replace("%", "%%") if listed else argparse.SUPPRESS
    group.add_argument(f"--{name}", metavar=metavar, help=text, **alone)


def parse(parser: OneLineParser, arguments: list[str]) -> tuple[dict[str, Any], argparse.Namespace]:
    """(options of runs that were given, everything else). "none" stands for no value.

    Raises UserError for an unknown flag, naming the nearest.
    """
    namespace, unknown = parser.parse_known_args(arguments)
    for word in unknown:
        if word.startswith("--"):
            flags = [
                name.removeprefix("--")
                for action in parser._actions
                for name in action.option_strings
                if name.startswith("--")
            ]
            name = word.split("=")[0].removeprefix("--")
            raise UserError(f"unknown flag --{name}; {suggest(name, flags)}")
        raise UserError(f"unexpected word '{word}': flags look like --task rte")
    flags = {name: empty_as_none(name, value) for name, value in vars(namespace).items() if name in OPTIONS}
    rest = argparse.Namespace(**{name: value for name, value in vars(namespace).items() if name not in OPTIONS})
    return flags, rest


def empty_as_none(name: str, value: str) -> str | None:
    own = RunConfig.own_options()
    can_be_none = name not in own or option_type(own[name].annotation).optional
    return None if value.lower() == "none" and can_be_none else value
