"""Make a log of the QEMU at hand for test_rrlog_versions: keys, a mouse and a tablet.

    python tests/recording/logs/make.py qemu-system-x86_64

records a PC whose firmware is an endless loop, and writes `VERSION.log` beside this file.
00e0200c.log is of QEMU 10.0.2, 00e0200e.log of QEMU 11.1.3, both as Debian builds them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LOOP = b"\xeb\xfe"
"""An instruction that jumps to itself."""

EVENTS = [
    {"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "a"}}},
    {"type": "key", "data": {"down": False, "key": {"type": "number", "data": 30}}},
    {"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "ret"}}},
    {"type": "btn", "data": {"down": True, "button": "right"}},
    {"type": "rel", "data": {"axis": "y", "value": -5}},
    {"type": "abs", "data": {"axis": "x", "value": 4711}},
]


def main(qemu: str) -> None:
    """Record, and name the log by its version."""
    firmware = HERE / "loop.bin"
    firmware.write_bytes(bytes(0xFFF0) + LOOP + bytes(14))
    unnamed = HERE / "new.log"
    commands = [
        {"execute": "qmp_capabilities"},
        {"execute": "cont"},
        *({"execute": "input-send-event", "arguments": {"events": [event]}} for event in EVENTS),
        *[{"execute": "query-status"}] * 20,  # time for all to be logged
        {"execute": "quit"},
    ]
    subprocess.run(
        [
            *(qemu, "-M", "pc,hpet=off", "-nodefaults", "-display", "none", "-S", "-m", "1"),
            *("-bios", str(firmware), "-usb", "-device", "usb-tablet"),
            *("-qmp", "stdio", "-icount", f"shift=7,rr=record,rrfile={unnamed}"),
        ],
        input="\n".join(map(json.dumps, commands)),
        text=True,
        check=True,
    )
    firmware.unlink()
    version = unnamed.read_bytes()[:4].hex()
    unnamed.rename(HERE / f"{version}.log")


if __name__ == "__main__":
    main(sys.argv[1])
