"""One flag per option. --help lists them in sections: every run's, then the methods', then the tasks'."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from adept.base.errors import UserError
from adept.base.options import Options, default_of, option_type
from adept.config.other_names import suggest
from adept.config.run import OPTIONS, RunConfig
from adept.methods import METHODS
from adept.tasks import ROWS

SECTIONS = {
    "task": "What is run",
    "steps": "Optimisation (Appendix E)",
    "max_source_len": "Data and evaluation",
    "data_dir": "Places, devices and logs (no part of the run's id)",
}
"""Headings of RunConfig's own options, each with the first option below it."""

FOOTER = """
A value in brackets is the default, which configs/base.yaml, the protocol's file and --config FILE may change; "none"
stands for no value. With --method NAME or --task NAME, --help lists only what that method or task has."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help whose usage line shows one flag for all options of runs."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30)

    def add_usage(self, usage, actions, groups, prefix=None):
        any_option = argparse.Action(["--OPTION"], dest="", metavar="VALUE ...")
        others = [action for action in actions if action.dest not in OPTIONS]
        flags = [action for action in others if action.option_strings]
        words = [action for action in others if not action.option_strings]
        super().add_usage(usage, [*words, *flags, any_option], groups, prefix)


class OneLineParser(argparse.ArgumentParser):
    """argparse that raises a UserError for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def command_line(
    description: str, *, prog: str | None = None, config_file: bool = True, arguments: Iterable[str] = ()
) -> OneLineParser:
    """A parser with one flag per option of any run, and --config unless the command has a table file.

    arguments: the command line. With a --method or a --task in it, --help lists the options of that one alone.
    """
    parser = OneLineParser(
        prog=prog, description=description, epilog=FOOTER, formatter_class=HelpFormatter,
        allow_abbrev=False, argument_default=argparse.SUPPRESS,
    )  # fmt: skip
    if config_file:
        parser.add_argument(
            "--config", metavar="FILE", help="YAML file of options, above the protocol and below the flags"
        )
    group: Any = parser
    for name, field in RunConfig.own_options().items():
        if name in SECTIONS:
            group = parser.add_argument_group(SECTIONS[name])
        add_flag(group, name, field, help_text({"": field}))
    words = list(arguments)
    add_sections(parser, "method", METHODS, value_after("--method", words))
    add_sections(parser, "task", {task.name: type(task.options) for task in ROWS}, value_after("--task", words))
    return parser


def add_rerun(parser: OneLineParser) -> None:
    """Adds --rerun, for commands that find runs finished."""
    parser.add_argument(
        "--rerun",
        action="store_true",
        help="move the record of a finished run aside where its options, data or base model were others, and run again",
    )


def value_after(flag: str, words: list[str]) -> str | None:
    """The value of a flag on a command line, None where the flag is not there."""
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def add_sections(parser: OneLineParser, kind: str, owners: Mapping[str, type[Options]], chosen: str | None) -> None:
    """Adds the flags of all owners' options, in one section for each set of owners that share options.

    owners: {name of a method or task: the class of its options}. chosen: --help lists the options of this owner alone,
    in one section. The parser takes all others too, so that an error can say whose they are.
    """
    if chosen not in owners:
        chosen = None
    shared: dict[tuple[str, ...], list[str]] = {}
    for name in dict.fromkeys(name for options in owners.values() for name in options.own_options()):
        shared.setdefault(tuple(key for key, options in owners.items() if name in options.own_options()), []).append(
            name
        )
    groups: dict[str, Any] = {}
    for names in sorted(shared, key=len, reverse=True):  # what many share stands first
        title = ", ".join(names) if chosen is None else chosen
        if title not in groups:
            groups[title] = parser.add_argument_group(f"{kind.title()}{'s' if ',' in title else ''} {title}")
        for name in shared[names]:
            fields = {owner: owners[owner].own_options()[name] for owner in names}
            field = fields.get(chosen, fields[names[0]])
            text = help_text(fields) if chosen is None else help_text({chosen: field})
            add_flag(groups[title], name, field, text if chosen is None or chosen in names else argparse.SUPPRESS)


def help_text(fields: Mapping[str, FieldInfo]) -> str:
    """What an option means, with its default: "rank of A B (Eq. 2) [30]".

    fields: {owner: its field}. Where owners differ in meaning or default, they are named: "... [100 pt, 60 dept]".
    """
    descriptions: dict[str, dict[str, Any]] = {}
    for owner, field in fields.items():
        descriptions.setdefault(field.description, {})[owner] = default_of(field)
    parts = []
    for description, defaults in descriptions.items():
        prefix = f"{', '.join(defaults)}: " if len(descriptions) > 1 else ""
        parts.append(f"{prefix}{description}{shown_defaults(defaults)}")
    return "; ".join(parts)


def shown_defaults(defaults: Mapping[str, Any]) -> str:
    """ " [60]", or " [100 pt, 60 dept]" where the owners' defaults differ; nothing where there is no default."""
    shown = {owner: str(value).lower() if isinstance(value, bool) else value for owner, value in defaults.items()}
    if len(set(shown.values())) > 1:
        return f" [{', '.join(f'{value} {owner}' for owner, value in shown.items())}]"
    value = next(iter(shown.values()))
    return "" if value is None else f" [{value}]"


def add_flag(group: Any, name: str, field: FieldInfo, text: str) -> None:
    """Adds --name to a section of the parser. A flag that is true or false may stand alone: --fold is --fold true."""
    value_type = option_type(field.annotation)
    alone = {"nargs": "?", "const": "true"} if value_type.kind is bool else {}
    metavar = "{" + ",".join(map(str, value_type.choices)) + "}" if value_type.choices else value_type.kind.__name__
    shown = text if text is argparse.SUPPRESS else text.replace("%", "%%")
    group.add_argument(f"--{name}", metavar=metavar, help=shown, **alone)


def parse(parser: OneLineParser, arguments: list[str]) -> tuple[dict[str, Any], argparse.Namespace]:
    """(the options of runs that were given, everything else). "none" stands for no value.

    Raises UserError for an unknown flag, naming the nearest one.
    """
    namespace, unknown = parser.parse_known_args(arguments)
    for word in unknown:
        if not word.startswith("--"):
            raise UserError(f"unexpected word '{word}': flags look like --task rte")
        flag = word.split("=")[0]
        known = [name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")]
        raise UserError(f"unknown flag {flag}; {suggest(flag.removeprefix('--'), known)}")
    given = vars(namespace)
    flags = {name: empty_as_none(name, value) for name, value in given.items() if name in OPTIONS}
    return flags, argparse.Namespace(**{name: value for name, value in given.items() if name not in OPTIONS})


def empty_as_none(name: str, value: str) -> str | None:
    """None for the word "none", where the option can be without a value."""
    own = RunConfig.own_options()
    can_be_none = name not in own or option_type(own[name].annotation).optional
    return None if value.lower() == "none" and can_be_none else value
