"""Python reads this when it starts, because this folder is on PYTHONPATH: faults begin here.

Only in processes of retrograde: commands and index workers. See calls.py for the variables.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import Any

QMP, RSP = "qmp", "rsp"


def _kill_qemus() -> None:
    """Kill the machines this process runs, before the request under way is sent."""
    import signal

    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().startswith("qemu-system"):
                    os.kill(int(child), signal.SIGKILL)


def _hit(kind: str) -> bool:
    """Count a request; return whether it is the one that goes wrong."""
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    return bool(library.faults_request(kind.encode()))


def _break_requests(act: str) -> None:
    """Count requests to QEMU, and do `act` at the chosen one."""
    from qemu.qmp import QMPClient

    from retrograde.machine.gdb.link import GdbLink

    execute, send = QMPClient.execute, GdbLink.send

    async def counted_execute(self: Any, command: str, *others: Any, **named: Any) -> Any:
        if _hit(QMP):
            if act == "kill":
                _kill_qemus()
            elif act == "refuse":
                return await execute(self, "there-is-no-such-command")
            else:
                await self.disconnect()
        return await execute(self, command, *others, **named)

    def counted_send(self: Any, *payloads: bytes, **named: Any) -> None:
        if _hit(RSP):
            if act == "kill":
                _kill_qemus()
            elif act == "refuse":
                payloads = (b"!no such packet", *payloads[1:])
            else:
                self._transport.abort()
        send(self, *payloads, **named)

    QMPClient.execute, GdbLink.send = counted_execute, counted_send  # type: ignore[assignment, method-assign]


def _is_chosen() -> bool:
    if "retrograde.index.tables.worker" in sys.orig_argv:
        return os.environ.get("FAULTS_IN") in ("worker", "all")
    return os.environ.get("FAULTS_IN") in ("command", "all")


if "FAULTS_COUNTS" in os.environ and _is_chosen():
    # The first modules before anything is counted: no call of ours comes before them.

    _break_requests(os.environ.get("FAULTS_ACT", ""))
    if ctypes.CDLL(os.environ["LD_PRELOAD"]).faults_arm():
        sys.exit("the faults cannot be counted")
