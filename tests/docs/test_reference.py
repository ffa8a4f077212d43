"""The reference pages say what the code says."""

from __future__ import annotations

import re

import msgspec
import pytest

from retrograde import errors
from retrograde.machine.quirks import QUIRKS
from retrograde.position import parse_position
from retrograde.recording.manifest import FORMAT, Manifest
from retrograde.recording.rrevents import Kind
from retrograde.recording.rrlayout import LAYOUTS
from tests.docs.pages import code, column, page, section

_, SCHEMA = msgspec.json.schema_components([Manifest])
STRUCTS = {name: parts["properties"] for name, parts in SCHEMA.items() if "properties" in parts}


@pytest.mark.parametrize("struct", STRUCTS)
def test_every_field_of_the_manifest_is_documented(struct: str) -> None:
    rows = column(section(page("reference/recording.md"), struct))
    assert [code(cell) for cell in rows] == [[field] for field in STRUCTS[struct]]


def test_the_format_version_is_documented() -> None:
    assert f"Format version {FORMAT}." in page("reference/recording.md")


def test_every_error_is_documented_with_its_exit_code() -> None:
    text = page("reference/errors.md")
    documented = {
        name: int(number)
        for number, names in zip(column(text, 0), column(text, 2), strict=True)
        for name in code(names)
    }
    tree = {
        name: thing.exit_code
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, errors.RetrogradeError)
    }
    del tree["RetrogradeError"]
    assert documented == tree


def test_every_event_of_the_log_is_documented() -> None:
    text = page("reference/rr-log.md")
    documented: dict[int, str] = {}
    for numbers, names in zip(column(text, 0), column(text, 1), strict=True):
        first, _, last = numbers.replace(", ", " to ").partition(" to ")
        labels = [name for name in code(names) if re.fullmatch(r"[A-Z_]+\*?", name)]
        if labels and first.isdecimal():
            span = range(int(first), int(last or first) + 1)
            labels = labels * len(span) if len(labels) == 1 else labels
            documented |= dict(zip(span, labels, strict=True))
    assert documented.keys() == set(Kind)
    for kind in Kind:
        assert re.fullmatch(documented[kind].replace("*", ".*"), kind.name)
    assert {cell.strip("`") for cell in column(section(text, "Versions"), 0)} == {
        f"{version:#010x}" for version in LAYOUTS
    }


def test_every_quirk_has_its_section() -> None:
    for quirk in QUIRKS:
        text = section(page("quirks.md"), quirk.name)
        option = quirk.machine_option or quirk.global_option
        assert option in text
        assert "| symptom |" in text and "| seen |" in text


def test_every_form_of_a_position_is_accepted() -> None:
    forms = [form for cell in column(page("reference/positions.md")) for form in code(cell)]
    assert len(forms) > 8
    console = {"INIT-DONE": 1, "Kernel panic": 2}
    ports = {name: (lambda _text: 3) for name in ("debugcon", "semihosting", "serial1")}
    for form in forms:
        assert parse_position(form, 2_000_000_000, console.get, ports) in range(2_000_000_001)
