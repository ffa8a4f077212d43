"""What QEMU may open is an image that leads nowhere, and nothing else can be said."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrograde.commandline.guardedimage import GuardedImage
from retrograde.errors import RecordingError
from retrograde.machine.wiring import Wiring
from tests.machine.images import EXTERNAL_DATA_FILE, SIZE, memory_file, qcow2_header


def test_an_image_that_leads_nowhere() -> None:
    fd = memory_file(qcow2_header())
    image = GuardedImage(fd, "qcow2", "x")
    assert (image.path, image.format, image.size) == (f"/dev/fd/{fd}", "qcow2", SIZE)


@pytest.mark.parametrize("based", [False, True])
def test_an_external_data_file_is_refused(based: bool) -> None:
    fd = memory_file(qcow2_header(incompatible=EXTERNAL_DATA_FILE))
    with pytest.raises(RecordingError, match=r"^disk0 keeps its data in another file"):
        GuardedImage(fd, "qcow2", "disk0", based=based)


def test_a_backing_file_is_refused_where_nobody_overrules_it() -> None:
    fd = memory_file(qcow2_header(backing=b"/etc/passwd"))
    with pytest.raises(RecordingError, match="is based on another file"):
        GuardedImage(fd, "qcow2", "disk0")
    assert GuardedImage(fd, "qcow2", "disk0", based=True).size == SIZE


def test_the_format_is_ours_and_no_guess() -> None:
    hostile = qcow2_header(incompatible=EXTERNAL_DATA_FILE)
    assert GuardedImage(memory_file(hostile), "raw", "x").size == len(hostile)
    with pytest.raises(RecordingError, match="is no qcow2 image"):
        GuardedImage(memory_file(bytes(SIZE)), "qcow2", "x")


def test_what_was_checked_is_what_qemu_opens(tmp_path: Path) -> None:
    """An image that is swapped after the check: what QEMU gets is the one that was looked at."""
    good, hostile = qcow2_header(), qcow2_header(incompatible=EXTERNAL_DATA_FILE)
    path, other = tmp_path / "disk.qcow2", tmp_path / "other.qcow2"
    path.write_bytes(good)
    other.write_bytes(hostile)
    wiring = Wiring(None)
    try:
        with path.open("rb") as file:
            copies = [wiring.memory_copy(file, "x")]
            file.seek(0)
            copies.append(wiring.disk_copy(file, "x"))
            layer = wiring.layer(file, "qcow2", "x")
        other.replace(path)
        assert Path(layer.path).read_bytes() == good
        with path.open("r+b") as file:
            file.write(hostile)
        assert [Path(copy.path).read_bytes() for copy in copies] == [good, good]
        with path.open("rb") as file, pytest.raises(RecordingError, match="another file"):
            wiring.layer(file, "qcow2", "x")
        for copy in (wiring.memory_copy, wiring.disk_copy):
            with path.open("rb") as file, pytest.raises(RecordingError, match="another file"):
                copy(file, "x")
    finally:
        wiring.close()
        for link in (wiring.monitor_link, wiring.gdb_link):
            link.close()
