"""QEMU options written as JSON, as the pairs they would be as key=value."""

from __future__ import annotations

import json
from collections.abc import Iterator

from retrograde.commandline.refusals import Refusal, refuse
from retrograde.errors import ArgumentRefused
from retrograde.recording.keyval import Pairs


def json_pairs(text: str) -> Pairs:
    """Return the properties of an option in JSON; objects inside become dotted keys.

    Raises ArgumentRefused for what is not an object of texts, numbers and switches.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ArgumentRefused(f"{text} is not valid JSON: {error}.", "Check it.") from error
    return tuple(_flat("", given, text))


def _flat(prefix: str, given: object, text: str) -> Iterator[tuple[str, str]]:
    if not isinstance(given, dict):
        refuse(text, Refusal("it is not a JSON object", "Use key=value syntax."))
    for key, value in given.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{key}.", value, text)
        elif isinstance(value, bool):
            yield prefix + key, "on" if value else "off"
        elif isinstance(value, str | int):
            yield prefix + key, str(value)
        else:
            refuse(text, Refusal(f"its {key} is not plain", "Use key=value syntax."))
