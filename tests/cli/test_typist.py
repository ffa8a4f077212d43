"""Typing at a guest when its console shows something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograde.cli.typist import Script, Step, step_of
from retrograde.errors import UsageError
from tests.command import assert_error, retrograde


@pytest.mark.parametrize(
    ("text", "awaited", "keys"),
    [
        ("console:login: =root\\n", b"login: ", b"root\n"),
        ('console:"a=b"=c=d', b"a=b", b"c=d"),
        (r"console:$ =\e[A\r\t\\\x04", b"$ ", b"\x1b[A\r\t\\\x04"),
        ("console:grüß=ü", "grüß".encode(), "ü".encode()),
        ("console:a=\n", b"a", b"\n"),
    ],
)
def test_steps(text: str, awaited: bytes, keys: bytes) -> None:
    assert step_of(text) == Step(awaited, keys)


@pytest.mark.parametrize(
    "text", ["", "login=x", "console:=x", "console:a", "console:a=", 'console:""=x']
)
def test_what_is_no_step(text: str) -> None:
    with pytest.raises(UsageError, match="what to type when"):
        step_of(text)


@pytest.mark.parametrize("keys", [r"\q", r"\x4", "a\\"])
def test_what_is_no_key(keys: str) -> None:
    with pytest.raises(UsageError, match="no key"):
        step_of(f"console:a={keys}")


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_output_in_any_pieces(output: bytes, cuts: list[int]) -> None:
    steps = [Step(b"ab", b"1"), Step(b"b", b"2"), Step(b"aa", b"3")]
    script, typed, at = Script(steps), b"", 0
    for cut in sorted({min(cut, len(output)) for cut in (*cuts, len(output))}):
        typed += script.answer(output[at:cut])
        at = cut
    whole = Script(steps)
    assert typed == whole.answer(output)
    assert script.left() == whole.left()


def test_each_step_waits_for_the_one_before() -> None:
    script = Script([Step(b"one", b"1"), Step(b"two", b"2"), Step(b"two", b"3")])
    assert script.answer(b"two on") == b""
    assert script.answer(b"e tw") == b"1"
    assert script.answer(b"o") == b"2"
    assert script.answer(b"wo") == b""
    assert script.left() == ["two"]


@pytest.mark.qemu
@pytest.mark.parametrize("interactive", [(), ("-i",)])
def test_a_guest_that_is_typed_at(interactive, tmp_path, qemu):
    from tests.system import programs

    folder = tmp_path / "a.retro"
    steps = ("--type", "console:>=hel", "--type", "console:el=lo\\x04", "--type", "console:no=x")
    done = retrograde(
        *("record", "-o", folder, *steps, *interactive, "--timeout", "60", "--"),
        *programs.echo(tmp_path),
    )
    assert done.status == 0, done.stderr
    assert "the console never showed 'no'" in done.stderr
    assert (folder / "console.log").read_bytes() == b">hello\x04"
    assert (b">hello\x04" in done.stdout) == bool(interactive)
    assert retrograde("replay", folder).stdout == b">hello\x04"


def test_a_step_that_is_none(tmp_path):
    done = retrograde("record", "-o", tmp_path / "a.retro", "--type", "login=x", "--", "-m", "2")
    assert_error(done, 2, "does not say what to type when", "console:TEXT=KEYS")


@pytest.mark.qemu
@pytest.mark.parametrize(("shift", "is_told"), [("7", True), ("4", False)])
def test_time_outs_of_a_slow_processor_are_told(shift, is_told, tmp_path, qemu):
    from tests.system import programs

    arguments = programs.hello(tmp_path, b"job ssh/start timed out.\n")
    done = retrograde("record", "-o", tmp_path / "a.retro", "--shift", shift, "--", *arguments)
    assert done.status == 0
    assert ("try --shift 4" in done.stderr) == is_told
