"""A small, slow, synchronous QEMU rig for testing the probe against the gdbstub.

It shares no code with the machine layer, so that both cannot be wrong alike.
"""

import contextlib
import json
import mmap
import os
import re
import socket
import subprocess
from pathlib import Path

import numpy as np

from retrograde.guests import builtin_guest
from retrograde.recording.rrevents import Kind
from retrograde.recording.rrlog import RrLog

QEMU = "qemu-system-x86_64"
MEMORY = 32 << 20
REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rip", "eflags", "cs", "ss", "ds", "es", "fs", "gs"),
)
SIZES = (*([8] * 17), *([4] * 7))


class Replay:
    """One QEMU on a tiny guest; `record` makes the recording in `folder`."""

    def __init__(self, guest, folder, mode="replay", probe=None, gdb=False):
        self.ram_fd = os.memfd_create("ram")
        os.ftruncate(self.ram_fd, MEMORY)
        self._map = mmap.mmap(self.ram_fd, MEMORY)
        self.ram = np.frombuffer(self._map, dtype=np.uint8)
        ours, theirs = socket.socketpair()
        ours.settimeout(120)
        inherited = [theirs.fileno(), self.ram_fd]
        replay = f"shift=7,rr={mode},rrfile={folder}/replay.log,rrsnapshot=init"
        command = [
            *(QEMU, "-M", "pc,hpet=off,memory-backend=ram", "-global", "apic-common.vapic=off"),
            *("-m", "32M", "-object", "memory-backend-file,id=ram,share=on,size=32M,"),
            *("-display", "none", "-vga", "none", "-net", "none", "-no-reboot"),
            *("-serial", "null", "-icount", replay),
            *("-drive", f"file={folder}/machine.qcow2,if=none,id=rr"),
            *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-qmp", "chardev:qmp"),
            *builtin_guest(guest).qemu_args[4:],  # without its -M and -m
        ]
        command[command.index("-object") + 1] += f"mem-path=/dev/fd/{self.ram_fd}"
        if mode == "replay":
            command += ["-S", "-no-shutdown"]
        self.probe = probe
        if probe is not None:
            command += ["-plugin", probe.argument]
            inherited.append(probe.fd)
        if gdb:
            self._gdb, gdb_end = socket.socketpair()
            self._gdb.settimeout(120)
            inherited.append(gdb_end.fileno())
            command += ["-chardev", f"socket,id=gdb,fd={gdb_end.fileno()}", "-gdb", "chardev:gdb"]
        self.process = subprocess.Popen(command, pass_fds=inherited)
        theirs.close()
        if gdb:
            gdb_end.close()
            self._gdb_bytes = b""
        self._qmp = ours
        self._lines = ours.makefile("rwb")
        self._events = []
        self._read()
        self.command("qmp_capabilities")

    @staticmethod
    def record(guest, folder):
        """Record the guest to its end; it powers off by itself."""
        image = ["qemu-img", "create", "-q", "-f", "qcow2", f"{folder}/machine.qcow2", "1M"]
        subprocess.run(image, check=True)
        with Replay(guest, folder, "record") as recorder, contextlib.suppress(EOFError):
            while True:
                recorder._read()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        self.process.wait()
        self._lines.close()
        self._qmp.close()
        if hasattr(self, "_gdb"):
            self._gdb.close()
        os.close(self.ram_fd)

    @property
    def position(self):
        return self.command("query-replay")["icount"]

    def command(self, name, **arguments):
        self._lines.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        self._lines.flush()
        while True:
            answer = self._read()
            if "event" in answer:
                self._events.append(answer["event"])
            elif "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
            else:
                return answer["return"]

    def human(self, line):
        return self.command("human-monitor-command", **{"command-line": line})

    def run_to(self, position):
        self._events.clear()
        self.command("replay-break", icount=position)
        self._run()
        assert self.position == position

    def run_to_end(self):
        self._events.clear()
        self._run()

    def load(self):
        assert self.human("loadvm init") == ""
        if self.probe:
            self.probe.drop_code()

    def state(self):
        """All of RAM and all registers the monitor knows."""
        return self._map[:], self.human("info registers")

    def single_steps(self, number):
        """Yield (position, registers by name, RAM in place) before each of `number` steps."""
        self._packet("qSupported")
        for _ in range(number):
            values = bytes.fromhex(self._packet("g").decode().replace("x", "0"))
            registers, at = {}, 0
            for name, size in zip(REGISTERS, SIZES, strict=True):
                registers[name] = int.from_bytes(values[at : at + size], "little")
                at += size
            yield self.position, registers, self.ram
            assert self._packet("s").startswith(b"T05")

    def _run(self):
        self.command("cont")
        while "STOP" not in self._events:
            self._events.append(self._read()["event"])

    def _read(self):
        line = self._lines.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    def _packet(self, text):
        self._gdb.sendall(f"${text}#{sum(text.encode()) & 255:02x}".encode())
        while not (found := re.match(rb"[+]*\$([^#]*)#..", self._gdb_bytes)):
            received = self._gdb.recv(1 << 16)
            if not received:
                raise EOFError
            self._gdb_bytes += received
        self._gdb_bytes = self._gdb_bytes[found.end() :]
        self._gdb.sendall(b"+")
        return found[1]


def log_of(folder):
    return RrLog.open(Path(folder) / "replay.log")


def positions_of(folder, kind):
    return np.array([event.position for event in log_of(folder).events([kind])], np.uint64)


def deliveries_of(folder):
    """Positions at which an interrupt or exception is delivered, ascending."""
    kinds = (Kind.INTERRUPT, Kind.EXCEPTION)
    return np.sort(np.concatenate([positions_of(folder, kind) for kind in kinds]))
