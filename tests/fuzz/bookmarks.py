"""Fuzz target: bookmarks.json of a cache, which a stranger may have written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retrograde.investigation.bookmarks import Bookmarks
from retrograde.recording.sealed import copy_of
from tests.fuzz.mutation import change_json as mutate  # noqa: F401 - part of a target
from tests.fuzz.mutation import sealed
from tests.recording.handmade import make_recording

MOST = 512

SEEDS = (b'{"here":5,"a.b-c_d":1000}', b'{"start":1,"\\u001b[m":2,"x":-1}', b"{}", b"[]")


def open_target(place: Path) -> Callable[[bytes], None]:
    recording = make_recording(place / "a.retro")
    folder = recording.open_cache(make=True).path

    def one_input(data: bytes) -> None:
        for name in ("bookmarks.json", copy_of("bookmarks.json")):
            (folder / name).write_bytes(sealed(data))
        bookmarks = Bookmarks(recording)
        found = bookmarks.all()
        for name, position in found.items():
            assert name.isascii()
            assert name.isprintable()
            assert 0 <= position < 1 << 63
            assert bookmarks.resolve(name) == position
        bookmarks.add("mine", 7)
        assert bookmarks.all() == found | {"mine": 7}

    return one_input
