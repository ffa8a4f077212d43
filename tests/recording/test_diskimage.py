import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograde.recording.diskimage import read_header


def test_anything_else_is_raw(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(b"\xeb\x63" + bytes(1022))
    header = read_header(image)
    assert (header.format, header.size, header.backing) == ("raw", 1024, "")


@pytest.mark.parametrize(("magic", "name"), [(b"KDMV", "vmdk"), (b"QED\0", "qed")])
def test_formats_that_may_name_other_files_are_told(tmp_path, magic, name):
    image = tmp_path / "disk.img"
    image.write_bytes(magic + bytes(2000))
    assert read_header(image).foreign == name


def test_external_data_file_is_told(tmp_path):
    image = tmp_path / "disk.qcow2"
    header = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 0, 0, 16, 1 << 20).ljust(72, b"\0")
    image.write_bytes(header + struct.pack(">Q", 4) + bytes(200))
    assert read_header(image).external_data
    image.write_bytes(header + bytes(208))
    assert not read_header(image).external_data


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_a_damaged_header_is_read_without_harm(tmp_path_factory, tail):
    image = tmp_path_factory.mktemp("damaged") / "disk.qcow2"
    image.write_bytes(b"QFI\xfb" + tail)
    header = read_header(image)
    assert header.format in ("raw", "qcow2")
    assert len(header.backing) <= 1023


@pytest.mark.qemu
def test_reads_what_qemu_img_writes(tmp_path):
    base, top = tmp_path / "base.img", tmp_path / "top.qcow2"
    base.write_bytes(bytes(1 << 20))
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "raw", top]
    subprocess.run(words, check=True, cwd=tmp_path)
    header = read_header(top)
    assert (header.format, header.size) == ("qcow2", 1 << 20)
    assert (header.backing, header.backing_format) == ("base.img", "raw")
