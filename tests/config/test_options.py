"""Options: the one line that each kind of wrong value gets, records, and files read by the same library."""

import json
import pickle
from typing import Any, Literal

import pytest
from conftest import ROOT
from pydantic import Field

from adept.base.errors import UserError
from adept.base.options import LARGEST, Options, check_option, flat, option, option_type, read_options
from adept.base.validation import FileContent, line_error, validate
from adept.config.layers import resolve
from adept.config.run import OPTIONS, RunConfig, all_owners
from adept.methods import METHODS

RECORDS = sorted((ROOT / "results" / "runs").glob("*.json"))


class Oven(Options):
    """Options of every type."""

    trays: int = option(2, "trays", ge=1, le=8)
    minutes: int | None = option(None, "minutes", ge=0)
    heat: float = option(180.0, "degrees", ge=0.0, le=300.0)
    fan: bool = option(False, "with air")
    kind: Literal["gas", "electric"] = option("gas", "what heats it")
    step: Literal[0.1, 0.2] = option(0.2, "size of a step")
    maker: str = option("Bosch", "who made it")
    room: str = option(description="where it stands")


def oven(**values: Any) -> Oven:
    return Oven(**{"room": "kitchen", **values})


def refusal(**values: Any) -> str:
    with pytest.raises(UserError) as caught:
        oven(**values)
    return str(caught.value)


# Values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("trays", "many", "--trays must be a whole number >= 1 and <= 8, not 'many'"),
        ("trays", 0, "--trays must be a whole number >= 1 and <= 8, not 0"),
        ("trays", 9, "--trays must be a whole number >= 1 and <= 8, not 9"),
        ("trays", 1.5, "--trays must be a whole number >= 1 and <= 8, not 1.5"),
        ("trays", "1.5", "--trays must be a whole number >= 1 and <= 8, not '1.5'"),
        ("trays", True, "--trays must be a whole number >= 1 and <= 8, not True"),
        ("trays", [1], "--trays must be a whole number >= 1 and <= 8, not [1]"),
        ("trays", None, "--trays must be a whole number >= 1 and <= 8, not empty"),
        ("minutes", LARGEST + 1, f"--minutes must be a whole number >= 0 and <= {LARGEST}, not {LARGEST + 1}"),
        ("minutes", -1, f"--minutes must be a whole number >= 0 and <= {LARGEST}, not -1"),
        ("heat", "hot", "--heat must be a number >= 0.0 and <= 300.0, not 'hot'"),
        ("heat", 301, "--heat must be a number >= 0.0 and <= 300.0, not 301.0"),
        ("heat", "nan", "--heat must be a number >= 0.0 and <= 300.0, not nan"),
        ("heat", float("inf"), "--heat must be a number >= 0.0 and <= 300.0, not inf"),
        ("heat", True, "--heat must be a number >= 0.0 and <= 300.0, not True"),
        ("fan", "yes", "--fan must be true or false, not 'yes'"),
        ("fan", 1, "--fan must be true or false, not 1"),
        ("kind", "wood", "--kind must be one of gas, electric, not 'wood'"),
        ("step", 0.3, "--step must be one of 0.1, 0.2, not 0.3"),
        ("maker", "", "--maker must be text, not ''"),
        ("maker", 7, "--maker must be text, not 7"),
        ("maker", None, "--maker must be text, not empty"),
        ("colour", "red", "Oven has no option 'colour'"),
    ],
)
def test_a_wrong_value_is_one_line(name, value, line):
    assert refusal(**{name: value}) == line


def test_an_option_without_a_default_is_needed():
    with pytest.raises(UserError, match=r"^--room is missing$"):
        Oven()


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("trays", "3", 3),
        ("trays", "+3", 3),
        ("trays", 3.0, 3),
        ("trays", "3e0", 3),
        ("heat", "1e2", 100.0),
        ("heat", 200, 200.0),
        ("fan", "true", True),
        ("fan", "False", False),
        ("step", "0.1", 0.1),
        ("minutes", None, None),
        ("maker", "two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_text_and_numbers_become_the_options_type(name, value, taken):
    got = getattr(oven(**{name: value}), name)
    assert got == taken and type(got) is type(taken)
    assert check_option(Oven, name, value) == taken


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\r", "\x7f", "\x9b"])
def test_a_control_character_is_refused_and_not_printed(character):
    line = refusal(maker=f"a{character}b")
    assert line.startswith("--maker holds a control character: 'a") and line.isprintable()


@pytest.mark.parametrize(
    "value", ["https://me:hunter2hunter2@host/x", "https://host/x?api_key=hunter2hunter2", "hf_" + "hunter2" * 5]
)
def test_a_secret_is_refused_and_not_repeated(value):
    line = refusal(maker=value)
    assert line.startswith("--maker holds a password or token, which would be recorded")
    assert "hunter2" not in line


def test_one_value_is_checked_as_the_whole_is():
    with pytest.raises(UserError, match=r"^--trays must be a whole number >= 1 and <= 8, not 0$"):
        check_option(Oven, "trays", 0)


# Objects --------------------------------------------------------------------------------------------------------------


def test_replace_checks_again_and_leaves_the_original_alone():
    original = oven(trays=3)
    assert original.replace(trays="4").trays == 4
    assert original.trays == 3
    with pytest.raises(UserError, match="--trays must be"):
        original.replace(trays=0)
    with pytest.raises(UserError, match="Oven has no option 'colour'"):
        original.replace(colour="red")


def test_options_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        oven().trays = 3


def test_options_by_name_and_as_flat_values():
    assert list(Oven.own_options()) == ["trays", "minutes", "heat", "fan", "kind", "step", "maker", "room"]
    values = flat(oven(trays=5))
    assert values["trays"] == 5 and values["room"] == "kitchen"
    assert read_options(Oven, {**values, "colour": "red"}) == oven(trays=5)


@pytest.mark.parametrize("method", METHODS)
def test_a_configuration_survives_pickling(method):
    config = resolve({"task": "nq", "method": method})
    other = pickle.loads(pickle.dumps(config))
    assert other == config
    assert (other.run_id, other.flat()) == (config.run_id, config.flat())
    assert type(other.method_options) is METHODS[method]


def test_a_configuration_is_replaced_down_to_its_methods_and_tasks_options():
    config = resolve({"task": "nq", "method": "adept"})
    other = config.replace(seed=1, bottleneck=3, qa_references="first")
    assert (other.seed, other.bottleneck, other.qa_references) == (1, 3, "first")
    assert (config.seed, config.bottleneck, config.qa_references) == (42, 19, "all")
    with pytest.raises(UserError, match="--bottleneck must be"):
        config.replace(bottleneck=0)
    with pytest.raises(UserError, match="--rank has no effect on method 'adept'"):
        config.replace(rank=3)


def test_get_is_none_where_a_run_has_no_such_option():
    config = resolve({"task": "rte", "method": "pt"})
    assert config.get("bottleneck") is None and config.get("prompt_len") == 100
    with pytest.raises(AttributeError, match="a run of method 'pt' on task 'rte' has no option 'bottleneck'"):
        _ = config.bottleneck


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_several_classes_has_one_type(name):
    """Flags and YAML keys know an option by its name alone. Only whether it may be None can differ."""
    types = [option_type(owner.own_options()[name].annotation) for owner in all_owners() if name in owner.own_options()]
    assert len({(value_type.kind, value_type.choices) for value_type in types}) == 1
    assert OPTIONS[name].description


# Records --------------------------------------------------------------------------------------------------------------


def test_there_are_committed_records():
    assert RECORDS


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_committed_record_loads_and_keeps_its_run_id(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    config = RunConfig.from_record(record["config"])
    assert config.run_id == record["run_id"] == path.stem
    assert RunConfig.from_record(config.flat()) == config


# Files ----------------------------------------------------------------------------------------------------------------


class Address(FileContent):
    street: str
    number: int = Field(1, ge=1)


class Person(FileContent):
    name: str
    address: Address | None = None
    hobbies: list[Any] = Field(default_factory=list)
    sizes: dict[str, Any] | list[Any] = Field(default_factory=list)
    kind: Literal["guest", "host"] = "guest"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({}, "'name' is missing"),
        ({"name": 7}, "'name' must be text, not 7"),
        ({"name": ""}, "'name' is empty"),
        ({"name": None}, "'name' must be text, not None"),
        ({"nmae": "a"}, "unknown key 'nmae'; did you mean 'name'?"),
        ({"name": "a", 3: 1}, "unknown key '3'; known: address, hobbies, kind, name, sizes"),
        ({"name": "a", "hobbies": "b"}, "'hobbies' must be a list, not 'b'"),
        ({"name": "a", "sizes": "b"}, "'sizes' must be a mapping or a list, not 'b'"),
        ({"name": "a", "kind": "c"}, "'kind' must be one of guest, host, not 'c'"),
        ({"name": "a", "address": "b"}, "'address' must be a mapping, not 'b'"),
        ({"name": "a", "address": {}}, "'address' is empty"),
        ({"name": "a", "address": {"number": 1}}, "address: 'street' is missing"),
        ({"name": "a", "address": {"street": "b", "number": 0}}, "address: 'number' must be at least 1, not 0"),
        ({"name": "a", "address": {"street": "b", "number": "1"}}, "address: 'number' must be a whole number, not '1'"),
        ({"name": "a", "address": {"street": "b", "hous": 1}}, "address: unknown key 'hous'; known: number, street"),
    ],
    ids=str,
)
def test_a_mistake_in_a_file_is_one_line_that_names_the_file_and_the_key(content, line):
    with pytest.raises(UserError) as caught:
        validate(Person, content, "guests.yaml")
    assert str(caught.value) == f"guests.yaml: {line}"


def test_a_file_without_mistakes_is_an_object():
    person = validate(Person, {"name": "a", "address": {"street": "b"}}, "guests.yaml")
    assert person.address.number == 1


def test_a_check_may_write_its_own_line():
    assert str(line_error("'name' rhymes with 100%")) == "'name' rhymes with 100%"
