"""One QEMU run by a test: build its command line, start it, talk to it, end it.

The names are those of QEMU's own `qemu.machine.QEMUMachine`, as far as functional tests
use them; `qemu.machine` of this distribution is this class.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

from qemu.qmp import QMPError

from .child import tied
from .links import Address, ConsoleLink, MonitorLink
from .monitor import Message, QmpLink, arguments_of

LOG = logging.getLogger("qemu.machine")

START_SECONDS = 60.0
"""How long QEMU may take to answer on its monitor after its start."""

DYING_SECONDS = 2.0
"""How long a QEMU that closed its monitor is given to end with a status of its own."""


class QEMUMachineError(Exception):
    """Base of what this module raises."""


class VMLaunchFailure(QEMUMachineError):
    """QEMU ended instead of starting; `output` is all it printed."""

    def __init__(self, exitcode: int | None, command: str, output: str) -> None:
        super().__init__(exitcode, command, output)
        self.exitcode = exitcode
        self.command = command
        self.output = output

    def __str__(self) -> str:
        return (
            f"QEMU did not start (exit code {self.exitcode}).\n"
            f"Command: {self.command}\nOutput: {self.output.strip()}"
        )


class AbnormalShutdown(QEMUMachineError):
    """QEMU did not end when it was asked to, and was killed."""


class QEMUMachine:
    """A QEMU that is not started yet, runs, or has ended; it can be launched again then.

    A context manager: leaving it ends QEMU.
    """

    def __init__(
        self,
        binary: str,
        args: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        name: str | None = None,
        base_temp_dir: str = "/var/tmp",  # noqa: S108 - documented
        monitor_address: Address | None = None,
        drain_console: bool = False,  # noqa: ARG002 - it always is, see ConsolePump
        console_log: str | None = None,
        log_dir: str | None = None,
        qmp_timer: float | None = 30,
    ) -> None:
        """Prepare to run `binary` with `args`, prefixed by `wrapper`.

        QEMU's output goes to `NAME.log` in `log_dir`, what the guest prints on the console
        to `console_log`. `qmp_timer` is the seconds a QMP command may take, None for ever.
        With `monitor_address`, a path or (host, port), the monitor is there instead of on
        an inherited socket.
        """
        self._binary = binary
        self._args = list(args)
        self._wrapper = list(wrapper)
        self._name = name or f"qemu-{os.getpid()}-{id(self):x}"
        self._base_temp_dir = base_temp_dir
        self._log_dir = log_dir
        self._monitor_address = monitor_address
        self._console_log = console_log
        self._qmp_timer = qmp_timer
        self._qmp_enabled = True
        self._machine: str | None = None
        self._console_set = False
        self._console_device: str | None = None
        self._console_index = 0

        self._process: subprocess.Popen[bytes] | None = None
        self._launched = False
        self._temp_dir: str | None = None
        self._monitor: MonitorLink | None = None
        self._qmp: QmpLink | None = None
        self._console: ConsoleLink | None = None
        self._output = ""
        self._command = binary

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    # What it will be.

    @property
    def args(self) -> list[str]:
        """QEMU's arguments beside those this class adds; may be changed until the launch."""
        return self._args

    def add_args(self, *args: str) -> None:
        """Append arguments to QEMU's command line."""
        self._args.extend(args)

    def set_machine(self, machine_type: str) -> None:
        """Give QEMU `-machine machine_type`."""
        self._machine = machine_type

    def set_console(self, device_type: str | None = None, console_index: int = 0) -> None:
        """Put the guest's console on `console_socket`.

        It is the serial port number `console_index`, or a device of `device_type`. Only a
        serial port is recorded by QEMU's record/replay.
        """
        self._console_set = True
        self._console_device = device_type
        self._console_index = console_index

    def set_qmp_monitor(self, enabled: bool = True) -> None:
        """Leave the monitor out, for a QEMU that is to end while it starts."""
        self._qmp_enabled = enabled

    @property
    def temp_dir(self) -> str:
        """A folder for this machine's files; goes away at the shutdown."""
        if self._temp_dir is None:
            self._temp_dir = tempfile.mkdtemp(prefix="qemu-machine-", dir=self._base_temp_dir)
        return self._temp_dir

    @property
    def log_dir(self) -> str:
        """The folder QEMU's output is written to."""
        return self._log_dir or self.temp_dir

    # Its life.

    def launch(self) -> None:
        """Start QEMU and connect to its monitor; raises VMLaunchFailure when it ends at that."""
        if self._launched:
            raise QEMUMachineError(f"The machine {self._name} is launched already.")
        self._output = ""
        self._process = None
        self._launched = True
        try:
            self._start()
            self._connect()
        except BaseException as error:
            exitcode = self._settle()
            self._clean_up()
            # qemu.qmp asserts that it still runs (protocol.py, _new_session).
            if isinstance(error, (QMPError, OSError, EOFError, AssertionError)):
                output = self._output or str(error)
                raise VMLaunchFailure(exitcode, self._command, output) from error
            raise

    def wait(self, timeout: float | None = 30) -> None:
        """Wait until QEMU ends by itself; kill it and raise AbnormalShutdown after `timeout` s."""
        if self._launched:
            self._end(timeout)

    def shutdown(self, hard: bool = False, timeout: float | None = 30) -> None:
        """End QEMU, by its `quit` or at once if `hard`; does nothing when it is not launched.

        Raises AbnormalShutdown when it had to be killed because it took over `timeout` s.
        """
        if not self._launched:
            return
        if hard:
            self._kill()
        began = time.monotonic()
        if self.is_running():
            self._ask_to_quit(timeout)
        self._end(None if timeout is None else max(0.0, timeout + began - time.monotonic()))

    def kill(self) -> None:
        """End QEMU at once."""
        self.shutdown(hard=True)

    def is_running(self) -> bool:
        """Whether QEMU was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def exitcode(self) -> int | None:
        """Exit code of QEMU, negative for a signal; None while it runs or was never started."""
        return self._process.poll() if self._process else None

    def get_pid(self) -> int | None:
        """QEMU's process id; None when it does not run."""
        return self._process.pid if self._process and self.is_running() else None

    def get_log(self) -> str:
        """Return what QEMU printed on stdout and stderr so far."""
        if self._launched:
            with contextlib.suppress(FileNotFoundError):
                return self._log_path.read_text(errors="replace")
        return self._output

    # Its monitor.

    def qmp(
        self,
        cmd: str,
        args_dict: Mapping[str, object] | None = None,
        conv_keys: bool | None = None,
        **args: object,
    ) -> Message:
        """Run a QMP command; return the answer, with the key `return` or `error`.

        Names given as keywords have their underscores turned to dashes unless `conv_keys`
        is false; those in `args_dict` are taken as they are unless it is true.
        """
        return self._link.execute_raw(cmd, arguments_of(args_dict, conv_keys, args))

    def cmd(
        self,
        cmd: str,
        args_dict: Mapping[str, object] | None = None,
        conv_keys: bool | None = None,
        **args: object,
    ) -> object:
        """Run a QMP command, arguments as for `qmp`; return what it returns.

        Raises qemu.qmp.ExecuteError when QEMU refuses it.
        """
        return self._link.execute(cmd, arguments_of(args_dict, conv_keys, args))

    command = cmd
    """Name of `cmd` before QEMU 8.2."""

    def get_qmp_event(self, wait: bool | float = False) -> Message | None:
        """Return the oldest event not yet returned; None when there is none.

        With `wait` true it is waited for; a number is the seconds to wait before TimeoutError.
        """
        return self._link.pop_event(wait)

    def get_qmp_events(self, wait: bool | float = False) -> list[Message]:
        """Return all events not yet returned; `wait` is as for `get_qmp_event`."""
        return self._link.pop_events(wait)

    def event_wait(
        self, name: str, timeout: float | None = 60.0, match: Mapping[str, object] | None = None
    ) -> Message:
        """Wait for the event `name` that has what `match` has; other events stay.

        Raises TimeoutError after `timeout` seconds, StateError when QEMU ends before.
        """
        return self.events_wait([(name, match)], timeout)

    def events_wait(
        self,
        events: Sequence[tuple[str, Mapping[str, object] | None]],
        timeout: float | None = 60.0,
    ) -> Message:
        """Wait for one of several events, each a name and what it must match."""
        return self._link.wait_for_event(events, timeout)

    # Its console.

    @property
    def console_socket(self) -> socket.socket:
        """The console, as a stream socket. It is read all the time, see ConsolePump."""
        return self._console_link.end

    @property
    def console_file(self) -> IO[bytes]:
        """The console, as an unbuffered file."""
        return self._console_link.file

    # How it is done.

    @property
    def _base_args(self) -> list[str]:
        """Arguments before those added; subclasses extend it."""
        args = ["-display", "none", "-vga", "none"]
        if self._monitor is not None:
            args += ["-chardev", self._monitor.chardev, "-mon", "chardev=mon,mode=control"]
        if self._machine is not None:
            args += ["-machine", self._machine]
        args += ["-serial", "null"] * self._console_index
        if self._console is not None:
            args += ["-chardev", self._console.chardev]
            # Only -serial is recorded; a chardev given to a device is not.
            device = self._console_device
            args += (
                ["-serial", "chardev:console"]
                if device is None
                else ["-device", f"{device},chardev=console"]
            )
        return args

    @property
    def _full_args(self) -> list[str]:
        return [*self._wrapper, self._binary, *self._base_args, *self._args]

    @property
    def _log_path(self) -> Path:
        return Path(self.log_dir, f"{self._name}.log")

    @property
    def _link(self) -> QmpLink:
        if self._qmp is None:
            raise QEMUMachineError(f"The machine {self._name} has no monitor: it does not run.")
        return self._qmp

    @property
    def _console_link(self) -> ConsoleLink:
        if self._console is None:
            raise QEMUMachineError("There is no console: call set_console(), then launch().")
        return self._console

    def _start(self) -> None:
        program = (self._wrapper or [self._binary])[0]
        if shutil.which(program) is None:
            raise FileNotFoundError(f"{program} is not a program.")
        if self._qmp_enabled:
            self._monitor = MonitorLink(self._monitor_address)
        if self._console_set:
            self._console = ConsoleLink(self._open_transcript())
        argv = self._full_args
        self._command = shlex.join(argv)
        LOG.debug("starting %s", self._command)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                tied(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Tests hand over sockets of their own by making them inheritable.
                close_fds=False,
            )
        if self._console is not None:
            self._console.release()

    def _connect(self) -> None:
        if self._monitor is not None:
            link = self._monitor.connected(START_SECONDS)
            self._qmp = QmpLink(self._name, self._qmp_timer)
            self._qmp.connect(link, START_SECONDS)

    def _open_transcript(self) -> BinaryIO:
        if self._console_log is None:
            return cast(BinaryIO, tempfile.TemporaryFile(dir=self.temp_dir, buffering=0))
        return cast(BinaryIO, Path(self._console_log).open("w+b", buffering=0))

    def _ask_to_quit(self, seconds: float | None) -> None:
        assert self._process is not None
        if self._qmp is None:
            self._process.terminate()
            return
        # When it cannot answer it cannot end either, which `_end` finds out.
        with contextlib.suppress(QMPError, EOFError, OSError, TimeoutError):
            self._qmp.execute("quit", {}, seconds)

    def _end(self, seconds: float | None) -> None:
        """Wait for the end, kill if it does not come, and clean up."""
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._kill()
            raise AbnormalShutdown(
                f"{self._name} did not end in time and was killed. {self._log_path} has what "
                f"it printed."
            ) from None
        finally:
            self._kill()
            self._report_signal()
            self._clean_up()

    def _settle(self) -> int | None:
        """Return the exit code of a QEMU that closed its monitor; kill it if it has none."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(DYING_SECONDS)
            self._kill()
        return self.exitcode()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _report_signal(self) -> None:
        code = self.exitcode()
        if code is not None and code < 0 and -code != signal.SIGKILL:
            LOG.warning("%s was ended by %s", self._name, signal.Signals(-code).name)

    def _clean_up(self) -> None:
        """Give back everything but the exit code and what QEMU printed."""
        self._output = self.get_log()
        self._launched = False
        # In this order: the protocol says goodbye over the socket of the monitor.
        for link in (self._qmp, self._monitor, self._console):
            if link is not None:
                link.close()
        self._qmp = self._monitor = self._console = None
        if self._temp_dir is not None:
            shutil.rmtree(self._temp_dir, ignore_errors=True)
            self._temp_dir = None
