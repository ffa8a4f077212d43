"""QEMU's reverse-debugging scenario as ours: record, step both ways, run both ways.

Written on the API of QEMU's functional tests, so that it runs wherever those do. What makes
QEMU's own version of it fail now and then is left out here; docs/reverse-debug-tests.md
tells each cause. The scenario is the strictest QEMU's stub can pass: every pc is compared.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from qemu_test import GDB, LinuxKernelTest, get_qemu_img, skipIfMissingEnv, skipIfMissingImports
from qemu_test.machine import QEMUMachine
from retrograde.isa.isa import X86, isa_for
from retrograde.machine.segment import QUESTION, linear_pc
from retrograde.recording.rrlog import RrLog

STEPS = 10


class ReverseScenario(LinuxKernelTest):
    """Gives tests `reverse_debugging`."""

    @skipIfMissingImports("pygdbmi")
    @skipIfMissingEnv("QEMU_TEST_GDB")
    def reverse_debugging(self, gdb_arch: str, *args: str, reach: int | None = None) -> None:
        """Record the machine with `args`, and check that it runs backwards exactly.

        It runs on to the end of the recording, or to position `reach`. Skips the test when
        gdb does not know `gdb_arch`.
        """
        self.require_accelerator("tcg")
        gdb = GDB(os.environ["QEMU_TEST_GDB"])
        self.addCleanup(gdb.exit)
        if gdb_arch not in gdb.cli("set architecture").get_log():
            self.skipTest(f"GDB does not support arch '{gdb_arch}'")
        image = self.scratch_file("snapshots.qcow2")
        subprocess.check_call([get_qemu_img(self), "create", "-qf", "qcow2", image, "128M"])
        end = self._record(image, args)
        vm = self._replay(image, args)
        gdb.cli(f"target remote {self._socket}")
        steps = self._step_both_ways(gdb)
        self._run_both_ways(gdb, vm, steps, min(end - 1, reach or end))

    def _launch(self, name: str, image: str, args: tuple[str, ...], *more: str) -> QEMUMachine:
        vm = self.get_vm(name=name)
        vm.set_console()
        log = self.scratch_file("replay.bin")
        vm.add_args("-icount", f"shift=7,rr={name},rrfile={log},rrsnapshot=init", "-net", "none")
        vm.add_args("-drive", f"file={image},if=none", *args, *more)
        vm.launch()
        return vm

    def _record(self, image: str, args: tuple[str, ...]) -> int:
        """Record until the guest has run for a moment; return where every replay gets to."""
        vm = self._launch("record", image, args)
        while _position(vm) <= STEPS:
            pass
        vm.shutdown()
        # Not what query-replay said: QEMU may log the end before instructions it counted.
        end = RrLog.open(Path(self.scratch_file("replay.bin"))).summary().end
        self.assertGreater(end, STEPS + 1, "too little was recorded to step through")
        self.log.info("recorded %d instructions", end)
        return end

    def _replay(self, image: str, args: tuple[str, ...]) -> QEMUMachine:
        self._socket = str(Path(self.socket_dir().name, "gdb"))
        # Without -no-shutdown QEMU would be gone where the recorded end comes early.
        stub = f"unix:{self._socket},server=on,wait=off"
        return self._launch("replay", image, args, "-gdb", stub, "-S", "-no-shutdown")

    def _step_both_ways(self, gdb: GDB) -> list[int]:
        """Step forward, back, and forward again; return the addresses, all compared."""
        steps = []
        for _ in range(STEPS):
            steps.append(self._pc(gdb))
            gdb.cli("stepi")
        for number, address in reversed(list(enumerate(steps))):
            gdb.cli("reverse-stepi")
            self._expect(gdb, address, f"stepping back to instruction {number}")
        for number, address in enumerate(steps):
            self._expect(gdb, address, f"stepping forward again to instruction {number}")
            gdb.cli("stepi")
        return steps

    def _run_both_ways(self, gdb: GDB, vm: QEMUMachine, steps: list[int], last: int) -> None:
        """Break at all those instructions, run on, and back to the last of them."""
        for address in steps:
            gdb.cli(f"break *{address:#x}")
        vm.cmd("replay-break", icount=last)
        gdb.cli("continue")
        stopped = _position(vm)
        self.assertGreater(stopped, STEPS)
        if stopped != last:
            self.assertIn(self._pc(gdb), steps, "stopped where there is no breakpoint")
        gdb.cli("reverse-continue")
        self._expect(gdb, steps[-1], f"running back from {stopped} of {last}")
        self.assertEqual(_position(vm), STEPS - 1)

    def _pc(self, gdb: GDB) -> int:
        """Return where the next instruction is, as an address breakpoints can have."""
        isa = isa_for(self.arch)
        names = {isa.pc, *({"efer"} if isa.target in X86 else ())}
        values = {name: gdb.cli(f"print/x ${name}").get_addr() or 0 for name in names}
        known = isa.linear_pc(values)
        if known is not None:
            return known
        answer = gdb.get_payload(gdb.cli(f"monitor {QUESTION}").response, "target")
        return linear_pc(isa, values, "".join(answer))

    def _expect(self, gdb: GDB, address: int, doing: str) -> None:
        self.assertEqual(f"{self._pc(gdb):#x}", f"{address:#x}", doing)


def _position(vm: QEMUMachine) -> int:
    answer = vm.cmd("query-replay")
    assert isinstance(answer, dict)
    return int(answer["icount"])
