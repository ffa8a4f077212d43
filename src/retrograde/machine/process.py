"""One QEMU process: start it, know when it dies and why, leave nothing behind.

Everything a QEMU needs from us travels over inherited descriptors (sockets, memory
files), so that there is no name on any file system to clean up after a crash. The
kernel kills the child when we die (PR_SET_PDEATHSIG, set by util-linux's setpriv
because running Python between fork and exec is not safe beside threads).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

from retrograde.asking import KILLED, how_it_ended
from retrograde.errors import QemuDied, QemuKilled, QemuTimeout
from retrograde.held import Scratch
from retrograde.machine import confine

Result = TypeVar("Result")

INPUTS = "inputs"
"""What a QEMU knows the folder of a recording's inputs as."""

STDERR_KEPT = 8192
"""Bytes of QEMU's last words that go into an error."""

DEFECTS = "`retrograde doctor` tells which defects of this QEMU are known."

EXIT_SECONDS = 10.0
"""How long a QEMU that was asked to end may take before it is killed."""


def wipe_environment() -> dict[str, str]:
    """Return the environment QEMU runs in: ours without what would change its behaviour.

    QEMU_AUDIO_DRV and friends pick host devices, MALLOC_* and LD_* change the binary
    whose digest the manifest keeps.
    """
    dropped = ("QEMU_", "LD_", "MALLOC_", "G_MESSAGES")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)}


def input_path(name: str) -> str:
    """Return the path under which QEMU opens the input `name`.

    Guests may see it: malta's firmware passes the kernel's on (hw/mips/malta.c), an option ROM
    is found by its last part (hw/core/loader.c).
    """
    return f"{INPUTS}/{name}"


async def finished(work: Awaitable[Result]) -> Result:
    """Do `work` to its end even when cancelled, and be cancelled only then.

    For what gives something back. Shielding alone would leave the rest of it to a task
    that nobody waits for and that dies with the event loop.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


def send_signal(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to a child; does nothing when it has ended.

    asyncio's own `kill` and `terminate` may reap a child that has just died, under the feet
    of asyncio's thread that waits for it: its exit status is lost, and 255 is told in its
    place (CPython's issue 127049, up to Python 3.13).
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def cpu_seconds_in(place: Path) -> float:
    """Return the processor time of the process or thread with this folder; 0 when it is gone.

    That is user and system time of its `stat` (proc(5)), in steps of some 10 ms.
    """
    try:
        status = (place / "stat").read_bytes()
    except OSError:
        return 0.0
    user, system = status[status.rindex(b")") :].split()[12:14]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class QemuProcess:
    """A running QEMU. Made by `start`; always ended by `kill` or `wait`."""

    def __init__(
        self, process: asyncio.subprocess.Process, stderr_fd: int, name: str, place: Scratch
    ) -> None:
        self._process = process
        self._stderr_fd = stderr_fd
        self._name = name
        self._place = place

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        inputs: Path | None = None,
        confined: bool = False,
        stdout: int | None = None,
    ) -> QemuProcess:
        """Run `argv` with only `pass_fds` inherited, in a deleted working directory.

        With `inputs`, a folder, that directory lasts until `settle`, and the folder is known in
        it as `inputs`: a guest may see the names of files, so these are the same wherever a
        recording is. It gets a session of its own: a Ctrl-C at our terminal is for us to act
        on. A `confined` one can change no files but those of `pass_fds` that are open for
        writing. `stdout` is its standard output, which goes nowhere otherwise. Raises QemuDied
        when the program cannot be started.
        """
        stderr_fd = os.memfd_create("qemu-stderr")
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        if confined:
            # -I and -S: nothing but Python's own modules, and quickly.
            fds = ",".join(map(str, pass_fds))
            guard += [sys.executable, "-I", "-S", confine.__file__, fds]
        place = Scratch()
        try:
            if inputs is not None:
                (place.path / INPUTS).symlink_to(inputs.absolute())
            process = await asyncio.create_subprocess_exec(
                *guard,
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL if stdout is None else stdout,
                stderr=stderr_fd,
                pass_fds=tuple(pass_fds),
                env=wipe_environment(),
                cwd=place.path,
                start_new_session=True,
            )
        except OSError as error:
            os.close(stderr_fd)
            place.close()
            raise QemuDied(f"{argv[0]} could not be started: {error}.") from error
        except BaseException:
            place.close()
            raise
        started = cls(process, stderr_fd, Path(argv[0]).name, place)
        if inputs is None:
            started.settle()
        return started

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def name(self) -> str:
        """Base name of the program, for messages."""
        return self._name

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    def cpu_seconds(self) -> float:
        """Return the processor time it has used; 0 when it is gone."""
        return cpu_seconds_in(Path(f"/proc/{self.pid}"))

    def settle(self) -> None:
        """Delete its working directory, once it has opened its inputs. Safe to repeat.

        No relative name can reach any file from then on.
        """
        self._place.close()

    def stderr(self) -> str:
        """Return the last `STDERR_KEPT` bytes QEMU printed on stderr, as text."""
        if self._stderr_fd < 0:
            return ""
        size = os.fstat(self._stderr_fd).st_size
        start = max(0, size - STDERR_KEPT)
        return os.pread(self._stderr_fd, STDERR_KEPT, start).decode(errors="replace")

    def died(self, doing: str) -> QemuDied:
        """Make the error that says QEMU ended while we were `doing` something."""
        code = self.returncode
        how = "closed its connection" if code is None else how_it_ended(code)
        what = f"{self._name} {how} while {doing}."
        if code == -signal.SIGKILL:
            return QemuKilled(what, KILLED, self.stderr())
        return QemuDied(what, DEFECTS, self.stderr())

    def timed_out(self, doing: str, seconds: float) -> QemuTimeout:
        """Make the error that says QEMU did not finish `doing` within `seconds`."""
        return QemuTimeout(
            f"{self._name} did not finish {doing} within {seconds:g} s.",
            DEFECTS,
            detail=self.stderr(),
        )

    async def wait(self, seconds: float | None = None) -> int:
        """Wait for the end and return the exit status; raises QemuTimeout after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        except TimeoutError:
            raise self.timed_out("ending", seconds or 0) from None

    def terminate(self) -> None:
        """Ask QEMU to end as if it was quit (SIGTERM); `wait` tells when it has."""
        send_signal(self._process, signal.SIGTERM)

    async def kill(self) -> None:
        """End the process at once, reap it and close what we held. Safe to repeat."""
        send_signal(self._process, signal.SIGKILL)
        await finished(self._process.wait())

    def close(self) -> None:
        """Forget QEMU's stderr; the process must have ended."""
        self._place.close()
        if self._stderr_fd >= 0:
            os.close(self._stderr_fd)
            self._stderr_fd = -1
