"""The manifest: what it takes, what it refuses, what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograde.errors import FormatTooNew, ManifestError
from retrograde.recording.manifest import (
    FIRST_FORMAT,
    FORMAT,
    MANIFEST_LIMIT,
    InputFile,
    Manifest,
    decode_manifest,
    encode_manifest,
    input_name,
)
from tests.recording.handmade import make_recording

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder: Path = tmp_path_factory.mktemp("manifest")
    return make_recording(folder / "a.retro").manifest


def decoded(manifest: Manifest, **fields: Any) -> Manifest:
    document = json.loads(encode_manifest(manifest)) | fields
    return decode_manifest(json.dumps(document).encode(), "x.retro")


def test_there_and_back(manifest: Manifest) -> None:
    assert decode_manifest(encode_manifest(manifest), "x.retro") == manifest


def test_it_is_for_people_too(manifest: Manifest) -> None:
    lines = encode_manifest(manifest).decode().splitlines()
    assert lines[1] == f'  "format": {FIRST_FORMAT},'
    assert encode_manifest(manifest).endswith(b"}\n")


def test_newer_format(manifest: Manifest) -> None:
    with pytest.raises(FormatTooNew, match="has format 4"):
        decoded(manifest, format=FORMAT + 1, unheard_of=1)


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, None])
def test_no_format(manifest: Manifest, version: object) -> None:
    with pytest.raises(ManifestError, match="not valid"):
        decoded(manifest, format=version)


def test_size_limit(manifest: Manifest) -> None:
    data = encode_manifest(manifest)
    assert decode_manifest(data.ljust(MANIFEST_LIMIT), "x.retro") == manifest
    with pytest.raises(ManifestError, match="absurdly large"):
        decode_manifest(data.ljust(MANIFEST_LIMIT + 1), "x.retro")


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[31m", "\x9b31m", "\x7f", "a\n", "x" * 5000], ids=repr
)
def test_text_cannot_control_a_terminal(manifest: Manifest, text: str) -> None:
    for field in ("tool", "created"):
        with pytest.raises(ManifestError) as caught:
            decoded(manifest, **{field: text})
        assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("target", "version", "why"),
    [
        ("aarch64", 2, "files are not those"),  # it is let through, and has no ports.log
        ("aarch64", 1, "no ports but the console"),
        ("xtensa", 2, "no semihosting for xtensa"),
        ("m68k", 2, "no semihosting for m68k"),
    ],
)
def test_whose_semihosting_is_let_in(
    manifest: Manifest, target: str, version: int, why: str
) -> None:
    item = {"kind": "properties", "name": "semihosting-config", "items": [["enable", "on"]]}
    with pytest.raises(ManifestError, match=why):
        decoded(manifest, format=version, inputs=[], machine={"target": target, "options": [item]})


def test_an_input_that_nothing_needs(manifest: Manifest) -> None:
    idle = InputFile("kernel-gdb.py", "0" * 64, 9)
    with pytest.raises(ManifestError, match=r"needs the input kernel-gdb\.py"):
        decoded(manifest, inputs=msgspec.to_builtins((*manifest.inputs, idle)))


def test_quoted_text_is_tamed(manifest: Manifest) -> None:
    with pytest.raises(ManifestError) as caught:
        decoded(manifest, **{"\x1b[2J" + "x" * 1000: 1})
    assert "\x1b" not in caught.value.what
    assert len(caught.value.what) < 400


def test_the_first_version_of_logs_is_left_out(manifest: Manifest) -> None:
    assert b"log_version" not in encode_manifest(manifest)
    told = {"version": "11.1.3", "sha256": "0" * 64, "log_version": 0x00E0200E}
    later = decoded(manifest, qemu=told)
    assert later.qemu.log_version == 0x00E0200E
    assert decode_manifest(encode_manifest(later), "x.retro") == later


@pytest.mark.parametrize("digits", [str(1 << 63), str(1 << 64), "1" + 4000 * "0"])
def test_numbers_beyond_what_qemu_counts_with(manifest: Manifest, digits: str) -> None:
    data = encode_manifest(manifest)
    end = b'"end": %d' % manifest.end
    assert end in data
    decode_manifest(data.replace(end, b'"end": %d' % ((1 << 63) - 1)), "x.retro")
    with pytest.raises(ManifestError) as caught:
        decode_manifest(data.replace(end, f'"end": {digits}'.encode()), "x.retro")
    assert len(caught.value.what) < 400


@pytest.mark.parametrize("status", [-129, 256])
def test_no_such_exit_status(manifest: Manifest, status: int) -> None:
    with pytest.raises(ManifestError, match="status"):
        decoded(manifest, status=status)


def test_earlier_recordings_have_no_status(manifest: Manifest) -> None:
    document = json.loads(encode_manifest(manifest))
    del document["status"]
    assert decode_manifest(json.dumps(document).encode(), "x.retro").status == 0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_anything_in_any_field(manifest: Manifest, data: st.DataObject) -> None:
    """Either it is a manifest that survives encoding, or a ManifestError."""
    document = json.loads(encode_manifest(manifest))
    place: Any = document
    for _ in range(data.draw(st.integers(0, 5))):
        inner = [
            key
            for key in (place if isinstance(place, dict) else range(len(place)))
            if isinstance(place[key], dict | list) and place[key]
        ]
        if not inner:
            break
        place = place[data.draw(st.sampled_from(inner))]
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    place[data.draw(st.sampled_from(keys))] = data.draw(JSON)
    try:
        result = decode_manifest(json.dumps(document).encode(), "x.retro")
    except ManifestError as error:
        assert error.what.isprintable()
    except FormatTooNew:
        assert document["format"] > FORMAT
    else:
        assert decode_manifest(encode_manifest(result), "x.retro") == result


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(ManifestError):
        decode_manifest(data, "x.retro")


@given(st.lists(st.text(min_size=1, max_size=200), max_size=4))
def test_input_names_pass_the_schema(manifest: Manifest, names: list[str]) -> None:
    taken: set[str] = set()
    for name in names:
        chosen = input_name(name, taken)
        assert chosen not in taken
        taken.add(chosen)
    entries = [{"name": name, "sha256": "0" * 64, "bytes": 1} for name in sorted(taken)]
    options = [{"kind": "file", "name": "initrd", "input": n} for n in range(len(entries))]
    machine = {"target": "x86_64", "options": options}
    found = decoded(manifest, machine=machine, inputs=entries).inputs
    assert {entry.name for entry in found} == taken
