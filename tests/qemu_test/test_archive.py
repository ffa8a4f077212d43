"""Archives and compressed files, unpacked into the working folder."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from qemu_test import Asset, QemuBaseTest, archive_extract, uncompress
from qemu_test.archive import guess_archive_format

TEXT = b"text\n"


class Case(QemuBaseTest):
    def test(self) -> None: ...


@pytest.fixture
def case(tmp_path: Path) -> Case:
    made = Case("test")
    made.workdir = str(tmp_path / "work")
    Path(made.workdir).mkdir()
    return made


def tar(path: Path, mode: str = "w:gz", prefix: str = "") -> Path:
    with tarfile.open(path, mode) as archive:
        for name in ("dir/one", "dir/two"):
            info = tarfile.TarInfo(prefix + name)
            info.size = len(TEXT)
            archive.addfile(info, io.BytesIO(TEXT))
    return path


def deb(path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> Path:
    data = pack(tar(path.with_suffix(".tar"), "w", "./").read_bytes())
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in (("debian-binary", b"2.0"), (f"data.tar{suffix}", data)):
            file.write(f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return path


def test_tar_whole_and_a_member(case: Case, tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz")
    assert case.archive_extract(str(path)) is None
    assert Path(case.scratch_file("dir", "two")).read_bytes() == TEXT
    found = case.archive_extract(str(path), sub_dir="sub", member="dir/one")
    assert found == case.scratch_file("sub", "dir", "one")
    assert Path(found).read_bytes() == TEXT
    assert not Path(case.scratch_file("sub", "dir", "two")).exists()


def test_a_tar_cannot_leave_the_folder(case: Case, tmp_path: Path) -> None:
    with pytest.raises(tarfile.TarError):
        case.archive_extract(str(tar(tmp_path / "a.tar", "w", "../../")))


def test_a_tar_cannot_leave_the_folder_where_python_has_no_filters(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with pytest.raises(tarfile.TarError, match="leave"):
        case.archive_extract(str(tar(tmp_path / "a.tar", "w", "../../")))


def test_zip(case: Case, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "noname", "w") as archive:
        archive.writestr("dir/one", TEXT)
    found = case.archive_extract(str(tmp_path / "noname"), format="zip", member="dir/one")
    assert found is not None
    assert Path(found).read_bytes() == TEXT


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".xz", lzma.compress),
        (".zst", zstd.compress),
    ],
)
def test_deb(case: Case, tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = deb(tmp_path / "a.deb", suffix, pack)
    for member in ("dir/one", "./dir/one"):
        found = case.archive_extract(str(path), member=member)
        assert found is not None
        assert Path(found).read_bytes() == TEXT


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_from_a_file_and_an_open_one(case: Case, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "one").write_bytes(TEXT)
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        input=b"dir/one\n",
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    path = tmp_path / "a.cpio.bz2"
    path.write_bytes(bz2.compress(packed))
    with bz2.open(path) as handle:
        case.archive_extract(handle, format="cpio")
    assert Path(case.scratch_file("dir", "one")).read_bytes() == TEXT
    (tmp_path / "a.cpio").write_bytes(packed)
    case.archive_extract(str(tmp_path / "a.cpio"), sub_dir="sub")
    assert Path(case.scratch_file("sub", "dir", "one")).read_bytes() == TEXT
    with pytest.raises(ValueError, match="single member"):
        case.archive_extract(str(tmp_path / "a.cpio"), member="dir/one")


def test_what_is_no_archive(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give its `format`"):
        case.archive_extract(str(tmp_path / "a.bin"))
    with pytest.raises(ValueError, match="none of tar"):
        archive_extract(tmp_path / "a", str(tmp_path), format="rar")
    (tmp_path / "a.deb").write_bytes(b"no package")
    with pytest.raises(ValueError, match="no Debian package"):
        case.archive_extract(str(tmp_path / "a.deb"))


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://x/a.tar.xz", "tar"),
        ("https://x/a.tgz?job=1.zip", "tar"),
        ("https://x/linux-5.10.deb", "deb"),
        ("https://x/a.cpio", "cpio"),
    ],
)
def test_the_url_of_an_asset_tells_its_format(url: str, kind: str) -> None:
    assert guess_archive_format(Asset(url, "0" * 64)) == kind


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("vm.raw.xz", lzma.compress),
        ("vm.raw.gz", gzip.compress),
        ("vm.raw.zst", zstd.compress),
        ("vm.raw.bz2", bz2.compress),
    ],
)
def test_uncompress(case: Case, tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / name).write_bytes(pack(TEXT))
    found = case.uncompress(str(tmp_path / name))
    assert found == case.scratch_file("vm.raw")
    assert Path(found).read_bytes() == TEXT


def test_uncompress_an_asset(case: Case, build_folder: Path) -> None:
    import hashlib

    packed = gzip.compress(TEXT)
    asset = Asset("http://127.0.0.1:1/x.gz?raw", hashlib.sha256(packed).hexdigest())
    asset.cache_dir.mkdir(parents=True)
    asset.cache_file.write_bytes(packed)
    found = case.uncompress(asset)
    assert found == case.scratch_file(asset.hash)
    assert Path(found).read_bytes() == TEXT
    assert case.uncompress(asset, format="gz") == found


def test_what_is_not_compressed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give `format`"):
        uncompress(tmp_path / "a.bin", str(tmp_path / "b"))
    with pytest.raises(ValueError, match="none of xz"):
        uncompress(tmp_path / "a.bin", str(tmp_path / "b"), format="lz4")
