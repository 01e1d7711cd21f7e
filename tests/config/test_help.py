"""What train.py --help shows: options in sections, and those of the chosen method and task alone."""

import re

import pytest

from adept.config.command_line import SECTIONS, command_line, parse
from adept.config.run import METHOD_OPTIONS, OPTIONS, TASK_OPTIONS, RunConfig
from adept.methods import METHODS
from adept.tasks import TASKS


@pytest.fixture
def help_of(capsys, monkeypatch):
    """help_of(*words) -> {heading: {option: its text on one line}} of --help."""
    monkeypatch.setenv("COLUMNS", "110")

    def show(*words: str) -> dict[str, dict[str, str]]:
        arguments = [*words, "--help"]
        with pytest.raises(SystemExit) as stopped:
            parse(command_line("What it does.", arguments=arguments), arguments)
        assert stopped.value.code == 0
        sections: dict[str, dict[str, str]] = {}
        for block in capsys.readouterr().out.split("\n\n"):
            heading, *lines = block.splitlines()
            options = re.findall(r"^  --(\w+)(.*(?:\n {4}.*)*)", "\n".join(lines), re.MULTILINE)
            sections[heading.rstrip(":")] = {name: " ".join(text.split()) for name, text in options}
        return sections

    return show


def options_of(sections: dict[str, dict[str, str]]) -> list[str]:
    return [name for options in sections.values() for name in options if name != "config"]


def test_every_option_stands_in_one_section(help_of):
    sections = help_of()
    assert sorted(options_of(sections)) == sorted(OPTIONS)
    assert [heading for heading, options in sections.items() if options][1:5] == [*SECTIONS.values()]
    shared = f"Methods {', '.join(name for name in METHODS if 'prompt_len' in METHODS[name].own_options())}"
    assert "prompt_len" in sections[shared]
    assert list(sections["Method adept"]) == ["bottleneck_init", "bottleneck_dropout"]
    assert list(sections["Task squad"]) == ["squad_target"]


@pytest.mark.parametrize("method", METHODS)
def test_beside_a_method_only_its_options_are_listed(help_of, method):
    sections = help_of("--method", method)
    assert set(options_of(sections)) & METHOD_OPTIONS == set(METHODS[method].own_options())
    assert set(options_of(sections)) >= set(RunConfig.own_options()) | TASK_OPTIONS
    headings = [heading for heading, options in sections.items() if heading.startswith("Method") and options]
    assert headings == ([f"Method {method}"] if METHODS[method].own_options() else [])


@pytest.mark.parametrize("task", ["rte", "nq", "squad", "mbpp"])
def test_beside_a_task_only_its_options_are_listed(help_of, task):
    sections = help_of(f"--task={task}")
    assert set(options_of(sections)) & TASK_OPTIONS == set(TASKS[task].options.own_options())


def test_a_default_is_shown_and_where_owners_differ_so_are_they(help_of):
    sections = help_of()
    assert help_of("--method", "adept")["Method adept"]["bottleneck"].endswith("(Eq. 3) [19]")
    assert sections["Data and evaluation"]["group_by_length"].endswith("[true]")
    rank = next(options["rank"] for options in sections.values() if "rank" in options)
    assert "lora, dora: rank of LoRA's matrices (Appendix C) [16]; dept: rank of DePT's A B (Eq. 2) [30]" in rank
    (prompt_len,) = [options["prompt_len"] for options in sections.values() if "prompt_len" in options]
    assert "[100 pt, 60 dept, 60 adept, 100 spot, 40 residual, " in prompt_len
    assert help_of("--method", "dept")["Method dept"]["prompt_len"].endswith("[60]")


def test_the_usage_is_one_line(help_of):
    (usage,) = [heading for heading in help_of() if heading.startswith("usage:")]
    assert usage.endswith("[-h] [--config FILE] [--OPTION VALUE ...]")


def test_an_unknown_method_lists_every_option(help_of):
    assert sorted(options_of(help_of("--method", "addept"))) == sorted(OPTIONS)
