"""Every command says what it and each of its options are for."""

from __future__ import annotations

import click
import pytest

from retrograde.cli.main import LazyCommands, retrograde


def test_every_option_has_a_help_text():
    context = click.Context(retrograde)
    for name in retrograde.list_commands(context):
        command = retrograde.get_command(context, name)
        assert command.help, name
        silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
        assert not silent, f"{name}: {silent}"


def test_names_are_completed_without_importing_commands(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LazyCommands, "get_command", lambda *_: pytest.fail("imported one"))
    found = retrograde.shell_complete(click.Context(retrograde), "re")
    assert [item.value for item in found] == ["record", "replay"]
