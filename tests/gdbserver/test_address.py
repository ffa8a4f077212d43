import pytest

from retrograde.errors import UsageError
from retrograde.gdbserver.address import Address


@pytest.mark.parametrize(
    ("text", "shown", "local"),
    [
        ("./gdb.sock", "./gdb.sock", True),
        ("unix:gdb", "gdb", True),
        ("1234", "127.0.0.1:1234", True),
        (":1234", "127.0.0.1:1234", True),
        ("localhost:0", "localhost:0", True),
        ("[::1]:99", "[::1]:99", True),
        ("0.0.0.0:99", "0.0.0.0:99", False),
        ("[::]:99", "[::]:99", False),
        ("example.org:99", "example.org:99", False),
    ],
)
def test_addresses(text, shown, local):
    address = Address.parse(text)
    assert str(address) == shown
    assert address.is_local == local


def test_what_lldb_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Address.parse("./gdb.sock").url == f"unix-connect://{tmp_path}/gdb.sock"
    assert Address.parse("[::1]:99").url == "connect://[::1]:99"


@pytest.mark.parametrize("text", ["", "gdb", "host:", "host:99999", "::1:5", "/" + "a" * 200])
def test_what_is_no_address(text):
    with pytest.raises(UsageError):
        Address.parse(text)
