"""The scenario retrograde grew from: stock gdb, stock QEMU, forwards and backwards.

Step STEPS instructions, step them back comparing every pc, forward again comparing every
pc, set a breakpoint on each, run on, and reverse-continue: the machine must stand at the
last of them again. Here QEMU's own stub does the reversing, from the snapshot at
position 0; it is the independent witness for what our timeline answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

from retrograde.errors import AnswerNo
from retrograde.isa.isa import isa_for
from retrograde.machine.gdbprogram import gdb_for
from retrograde.machine.monitor import DYING_SECONDS
from retrograde.machine.process import finished
from retrograde.machine.qemu import Qemu
from retrograde.machine.replayer import Replayer
from retrograde.machine.segment import QUESTION, linear_pc
from retrograde.machine.wiring import GdbListener
from retrograde.recording.bundle import Recording
from retrograde.verify.gdbmi import GdbFailed, GdbMi

Report = Callable[[str], None]

_REMEDY = "This machine does not run backwards exactly; `retrograde doctor` may know why."


class ScenarioResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the scenario saw. `stopped` tells where `continue` ended.

    `stopped` is "end" when it reached the break one instruction before the end,
    "breakpoint" when an instruction of the first steps was executed again before.
    """

    steps: int
    first_pc: int
    last_pc: int
    stopped: str
    stopped_at: int


def seconds_to_replay(recording: Recording) -> float:
    """Return a deadline for one replay of the whole recording, in seconds.

    A replay takes about as long as the recording did (measured: 0.7 to 2 times); a
    reverse-continue is two of them. Generous, because it only ends what is stuck.
    """
    return 120.0 + 20.0 * recording.manifest.seconds


async def run_scenario(
    recording: Recording,
    qemu: Qemu,
    *,
    steps: int = 10,
    gdb: str | None = None,
    report: Report = lambda _text: None,
) -> ScenarioResult:
    """Run the scenario with real gdb: `gdb`, or one that knows the guest's architecture.

    Raises AnswerNo with the first differing position when the machine does not run
    backwards exactly, EnvironmentLacks when gdb is missing or does not know the
    architecture, GdbDied when gdb ends, QemuError when QEMU misbehaves, QemuDied among
    them as soon as QEMU ends.
    """
    program = gdb_for(isa_for(recording.manifest.machine.target), gdb)
    with GdbListener() as listener:
        async with await Replayer.start(recording, qemu, gdb_listener=listener) as replayer:
            listener.release()
            last = recording.end - 1
            scenario = _Scenario(recording, program, listener, steps, report)
            with contextlib.closing(scenario):
                await _while_alive(replayer, scenario, scenario.walk)
                await replayer.monitor.execute("replay-break", {"icount": last})
                await _while_alive(replayer, scenario, scenario.run_on)
                stopped_at = await replayer.ask_position()
                come_back = functools.partial(scenario.come_back, stopped_at)
                await _while_alive(replayer, scenario, come_back)
            return ScenarioResult(
                steps=steps,
                first_pc=scenario.pcs[0],
                last_pc=scenario.pcs[-1],
                stopped="end" if stopped_at == last else "breakpoint",
                stopped_at=stopped_at,
            )


async def _while_alive(replayer: Replayer, scenario: _Scenario, act: Callable[[], object]) -> None:
    """Do `act`, of the blocking half, in a thread, as long as QEMU lives.

    gdb may wait for its answer for ever. Raises QemuDied when QEMU ends, whatever gdb
    makes of that.
    """
    process = replayer.process
    acting = asyncio.ensure_future(asyncio.to_thread(act))
    gone = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait((acting, gone), return_when=asyncio.FIRST_COMPLETED)
        # gdb may see the end of its connection before we are told of QEMU's.
        if acting.done() and isinstance(acting.exception(), GdbFailed):
            await asyncio.wait((gone,), timeout=DYING_SECONDS)
    finally:
        gone.cancel()
        if not acting.done():
            scenario.stop()
            await finished(asyncio.wait((acting,)))
        failure = acting.exception()
    if process.returncode is not None:
        raise process.died(scenario.doing) from failure
    if failure:
        raise failure


class _Scenario:
    """The blocking half, run in a thread: gdb and what it saw."""

    def __init__(
        self, recording: Recording, gdb: str, listener: GdbListener, steps: int, report: Report
    ) -> None:
        self._isa = isa_for(recording.manifest.machine.target)
        self._deadline = seconds_to_replay(recording)
        self._steps = steps
        self._tell = report
        self.doing = "starting gdb"
        """What it is at, as it was reported last."""
        self._listener = listener
        self._gdb = GdbMi(gdb)
        self._seen: dict[int, list[int]] = {}

    def stop(self) -> None:
        """Have what another thread does here fail."""
        self._gdb.kill()

    def close(self) -> None:
        self._gdb.__exit__(None, None, None)

    def walk(self) -> None:
        """Attach, step forward, back, and forward again."""
        self._attach()
        self._report(f"stepping forward {self._steps} instructions")
        self._look()
        for _ in range(self._steps):
            self._gdb.move("stepi", self._deadline)
            self._look()
        self._report(f"stepping backward from {self._position():_}")
        while self._position() > 0:
            self._gdb.move("reverse-stepi", self._deadline)
            self._expect(self._position(), "stepping backward")
        self._report("stepping forward again")
        for _ in range(self._steps):
            self._gdb.move("stepi", self._deadline)
            self._expect(self._position(), "stepping forward again")

    def run_on(self) -> None:
        """Set breakpoints on all steps and continue to the break or to one of them."""
        for pc in dict.fromkeys(self.pcs):
            self._gdb.command(f"break *{pc:#x}")
        self._report("running to the end")
        self._gdb.move("continue", self._deadline)

    def come_back(self, stopped_at: int) -> None:
        """Reverse-continue to the last of the steps."""
        self._report(f"running backward from {stopped_at:_}")
        self._gdb.move("reverse-continue", self._deadline)
        self._expect(self._position(), "running backward")
        if self._pc() != self.pcs[-1]:
            raise AnswerNo(
                f"Running backward from {stopped_at:_} led to pc {self._pc():#x}, "
                f"not to the last step's {self.pcs[-1]:#x}.",
                _REMEDY,
            )

    @property
    def pcs(self) -> list[int]:
        """The pc of every step but the state after the last, in order."""
        return [pc for seen in self._seen.values() for pc in seen][:-1]

    def _report(self, doing: str) -> None:
        self.doing = doing
        self._tell(doing)

    def _look(self) -> None:
        self._seen.setdefault(self._position(), []).append(self._pc())

    def _position(self) -> int:
        match = re.search(r"instruction count = (\d+)", self._gdb.command("monitor info replay"))
        if not match:
            raise AnswerNo("QEMU does not say where it is.", "Is this a replay?")
        return int(match[1])

    def _attach(self) -> None:
        self._report("attaching gdb")
        self._gdb.command(f"set architecture {self._isa.gdb_architecture}")
        if self._isa.byte_order == "big":
            self._gdb.command("set endian big")
        log = self._gdb.connect(self._listener.path)
        for feature in ("ReverseStep+", "ReverseContinue+"):
            if not re.search(re.escape(feature), log):
                raise AnswerNo(
                    f"QEMU does not offer {feature} to gdb.",
                    "Its gdbstub cannot reverse this target; use another QEMU.",
                )

    def _pc(self) -> int:
        """Return the linear address of the next instruction: on x86 $pc is an offset."""
        registers = _GdbRegisters(self._gdb)
        known = self._isa.linear_pc(registers)
        if known is not None:
            return known
        return linear_pc(self._isa, registers, self._gdb.command(f"monitor {QUESTION}"))

    def _expect(self, position: int, doing: str) -> None:
        # Taking an interrupt is a step that stays at its position: two pcs there.
        pc, expected = self._pc(), self._seen.get(position, [])
        if pc not in expected:
            was = " or ".join(f"{value:#x}" for value in expected) or "never seen"
            raise AnswerNo(f"At position {position:_}, {doing}: pc is {pc:#x}, was {was}.", _REMEDY)


class _GdbRegisters(Mapping[str, int]):
    """Registers by name, each asked of gdb when read."""

    def __init__(self, gdb: GdbMi) -> None:
        self._gdb = gdb

    def __getitem__(self, name: str) -> int:
        return self._gdb.register(name)

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError("only single registers are asked for")

    def __len__(self) -> int:
        raise NotImplementedError("only single registers are asked for")
