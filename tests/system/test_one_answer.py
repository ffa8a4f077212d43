"""Who wrote last: gdb, the command line, Python and SQL agree, on stores and on devices."""

from __future__ import annotations

import re
import shutil

import pytest

import retrograde as library
from retrograde.verify.gdbmi import GdbMi
from tests.command import retrograde
from tests.system.gdbs import seek, serving

pytestmark = [pytest.mark.qemu, pytest.mark.gdb, pytest.mark.usefixtures("probe")]

ROM = 0xCA000
"""SeaBIOS has fw_cfg copy an option ROM there; the guest maps memory one to one."""
TOLD = re.compile(r"([\d_]+): (.+) wrote ([0-9a-f ]+) at (0x[0-9a-f]+), over ([0-9a-f ]+)")


@pytest.fixture
def asked(copied, tmp_path):
    """The recording, and a function that asks gdb, the command line and Python."""
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    path = copied("stacks")
    retrograde("index", path, "--tables", "blocks,written", "--jobs", "1")
    with library.open(path) as rec, serving(rec, tmp_path / "gdb"), GdbMi() as gdb:
        gdb.command("set architecture i386:x86-64")
        gdb.connect(tmp_path / "gdb")

        def ask(address, count, at):
            seek(gdb, at)
            told = TOLD.search(gdb.command(f"monitor last-write {address:#x} {count}"))
            assert gdb.command("monitor when").startswith(f"at {at:_} ")
            words = (f"{address:#x}:{count}", "--at", str(at), "--json")
            found = retrograde("last-write", path, *words).json()
            write = rec.last_write(address, count, at=at)
            position, pc, old, new = found["position"], found["pc"], found["old"], found["new"]
            assert (write.position, write.pc) == (position, pc)
            assert (write.old.hex(), write.new.hex()) == (old, new)
            assert int(told[1].replace("_", "")) == position
            assert told[2] == ("a device (DMA) or a page walk" if pc is None else f"pc {pc:#x}")
            assert (told[5].replace(" ", ""), told[3].replace(" ", "")) == (old, new)
            return write

        yield rec, ask


def test_of_what_a_device_wrote_and_of_a_store(asked):
    rec, ask = asked
    write = ask(ROM, 16, rec.end)
    assert write.pc is None
    retrograde("index", rec.path, "--writes", "all", "--from", "end-20000", "--to", "end")
    last = rec.query("FROM writes WHERE paddr IS NOT NULL ORDER BY position DESC LIMIT 1").all()[0]
    write = ask(last.vaddr, last.size, rec.end)
    assert (write.position, write.pc) == (last.position, last.pc)
    assert write.new == last.value.to_bytes(last.size, "little")
    earlier = ask(last.vaddr, last.size, write.position)
    assert earlier.position < write.position
