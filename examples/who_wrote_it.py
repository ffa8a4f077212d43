"""Which instruction last wrote a kernel variable before a console line?

    python examples/who_wrote_it.py NAME.retro "Run /init as init process"

The variable is the head of the kernel's log, `printk_ringbuffer.desc_ring.head_id`: each
printk writes it once. Where it lies is read out of the recorded machine itself: Linux
keeps a table of such facts in memory for crash dumps (vmcoreinfo). The answer is the
write that made room for the very line on the console.
"""

from __future__ import annotations

import re
import sys
import time

import retrograde

MIB = 1 << 20


def vmcoreinfo(rec: retrograde.Recording, timeline: retrograde.SyncTimeline) -> dict[str, int]:
    """Return SYMBOL(...) and OFFSET(...) of the recorded Linux, as its memory has them."""
    timeline.seek("end")
    ram = timeline.read(MIB, rec.manifest.ram.bytes - MIB, "physical")
    start = ram.index(b"OSRELEASE=", ram.index(b"SYMBOL(printk_rb_static)=") - 4096)
    table = ram[start : start + 4096].decode("ascii", errors="replace")
    symbols = re.findall(r"SYMBOL\((\S+)\)=([0-9a-f]+)", table)
    offsets = re.findall(r"OFFSET\((\S+)\)=(\d+)", table)
    return {name: int(value, 16) for name, value in symbols} | {
        name: int(value) for name, value in offsets
    }


def main(path: str, text: str) -> None:
    rec = retrograde.open(path)
    with rec.timeline() as timeline:
        facts = vmcoreinfo(rec, timeline)
        timeline.seek(f"console:{text}")
        began = time.perf_counter()
        ring = int.from_bytes(timeline.read(facts["prb"], 8), "little")
        head = ring + facts["printk_ringbuffer.desc_ring"] + facts["prb_desc_ring.head_id"]
        write = timeline.last_write(head, 8)
        assert write is not None
        before, after = (int.from_bytes(data, "little") for data in (write.old, write.new))
        seconds = time.perf_counter() - began
    print(f"{text!r} was written to the log by the instruction at {write.pc:#x},")
    print(
        f"position {write.position:_}: head_id {before:#x} -> {after:#x}, found in {seconds:.2f} s"
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
