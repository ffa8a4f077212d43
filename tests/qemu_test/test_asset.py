"""Assets: fetched once, checked, and told apart by what goes wrong."""

from __future__ import annotations

import hashlib
import http.server
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_test import Asset, QemuBaseTest
from qemu_test.asset import AssetError

DATA = b"a kernel" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()


class Server:
    """A web server on this machine; `asked` counts requests, `status` is the next answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = 200
        self.cut = 0
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked += 1
                self.send_response(owner.status)
                self.send_header("Content-Length", str(len(DATA)))
                self.end_headers()
                self.wfile.write(DATA[: len(DATA) - owner.cut])

            def log_message(self, *unused: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.xz?download=1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.mark.parametrize("digest", [SHA256, SHA512])
def test_fetched_once_and_kept_read_only(
    server: Server, build_folder: Path, monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    asset = Asset(server.url, digest)
    assert asset.available()
    assert asset.fetchable()
    assert not asset.valid()
    path = asset.fetch()
    assert path == str(asset) == str(build_folder / "cache" / "download" / digest)
    assert Path(path).read_bytes() == DATA
    assert Path(path).stat().st_mode & 0o777 == 0o440
    assert [p.name for p in Path(path).parent.iterdir()] == [digest]
    server.http.shutdown()
    monkeypatch.setenv("QEMU_TEST_NO_DOWNLOAD", "1")
    assert asset.valid()
    assert asset.fetch() == path
    assert server.asked == 1


def test_another_content_is_an_error_and_not_kept(server: Server, build_folder: Path) -> None:
    asset = Asset(server.url, "0" * 64)
    with pytest.raises(AssetError, match="does not have the digest") as caught:
        asset.fetch()
    assert not caught.value.transient
    assert not isinstance(caught.value, unittest.SkipTest)
    assert caught.value.asset is asset
    assert not asset.valid()
    assert list((build_folder / "cache" / "download").iterdir()) == []


def test_a_spoilt_cache_is_fetched_anew(server: Server) -> None:
    asset = Asset(server.url, SHA256)
    asset.cache_dir.mkdir(parents=True)
    asset.cache_file.write_bytes(b"spoilt")
    assert not asset.valid()
    assert Path(asset.fetch()).read_bytes() == DATA


@pytest.mark.parametrize(("status", "transient"), [(404, False), (503, True), (403, True)])
def test_what_a_server_refuses(server: Server, status: int, transient: bool) -> None:
    server.status = status
    with pytest.raises(AssetError, match=str(status)) as caught:
        Asset(server.url, SHA256).fetch()
    assert caught.value.transient is transient
    assert isinstance(caught.value, unittest.SkipTest) is transient


def test_a_download_cut_short_is_tried_again(server: Server) -> None:
    server.cut = 10
    with pytest.raises(AssetError, match="Unreachable") as caught:
        Asset(server.url, SHA256).fetch()
    assert caught.value.transient
    assert server.asked == 3


def test_nobody_there(server: Server) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(AssetError, match="Unreachable") as caught:
        Asset(server.url, SHA256).fetch()
    assert caught.value.transient


def test_no_download_allowed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_TEST_NO_DOWNLOAD", "1")
    asset = Asset(server.url, SHA256)
    assert not asset.available()
    with pytest.raises(AssetError, match="QEMU_TEST_NO_DOWNLOAD"):
        asset.fetch()
    assert server.asked == 0


def test_a_cache_to_refresh_is_refreshed_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = Asset(server.url, SHA256)
    asset.fetch()
    monkeypatch.setattr("qemu_test.asset._refreshed", set())
    monkeypatch.setenv("QEMU_TEST_REFRESH_CACHE", "1")
    assert not asset.valid()
    asset.fetch()
    asset.fetch()
    assert server.asked == 2


def test_many_who_want_it_at_once_download_it_once(server: Server) -> None:
    paths: list[str] = []
    asset = Asset(server.url, SHA256)
    threads = [threading.Thread(target=lambda: paths.append(asset.fetch())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [str(asset)] * 8
    assert server.asked == 1


def test_a_digest_of_no_known_kind() -> None:
    with pytest.raises(AssetError, match="no SHA-256"):
        Asset("http://127.0.0.1/x", "abc").fetch()


def test_assets_of_a_class_are_fetched_beforehand(server: Server, tmp_path: Path) -> None:
    class Case(unittest.TestCase):
        ASSET_ONE = Asset(server.url, SHA256)
        ASSET_GONE = Asset("http://127.0.0.1:1/", SHA512)
        other = Asset(server.url, "1" * 64)

        def test(self) -> None: ...

    Asset.precache_suite(unittest.TestSuite([unittest.TestSuite([Case("test")])]))
    assert Case.ASSET_ONE.valid()
    assert server.asked == 1


def test_available_looks_at_the_class_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Base(QemuBaseTest):
        ASSET_X = Asset("http://127.0.0.1:1/", SHA256)

    class Derived(Base): ...

    monkeypatch.setenv("QEMU_TEST_NO_DOWNLOAD", "1")
    base, derived = Base("assertTrue"), Derived("assertTrue")
    import logging

    base.log = logging.getLogger("qemu-test")
    assert not base.assets_available()
    assert derived.assets_available()
