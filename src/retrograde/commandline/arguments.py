"""The user's own QEMU arguments, turned into a machine description.

Arguments are what one would give `qemu-system-TARGET`. Everything the guest can see is
kept; what record/replay cannot honour is refused with the reason; what concerns only
the host is left out, with a note where somebody could miss it. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from retrograde.commandline import useroptions
from retrograde.commandline.clock import usual_shift
from retrograde.commandline.fatfolder import FatFolder
from retrograde.commandline.refusals import (
    HARDWARE,
    LEFT_OUT,
    NOT_TCG,
    ONLY_TCG,
    REFUSED_OPTIONS,
    SEMIHOSTING,
    Refusal,
    refuse,
)
from retrograde.commandline.userdisks import SHORTHANDS, BlockNodes, drive_disk, shorthand_disk
from retrograde.commandline.userfiles import UserFiles
from retrograde.commandline.usernet import UserNetwork
from retrograde.commandline.userserial import UserSerial
from retrograde.errors import ArgumentRefused
from retrograde.recording.allowlist import FILES, FLAGS, TEXTS
from retrograde.recording.keyval import split
from retrograde.recording.machinespec import (
    SEMIHOSTING_TARGETS,
    File,
    Flag,
    MachineSpec,
    Option,
    Shift,
    Text,
)

_UNKNOWN = Refusal(
    "it is not known to be recordable",
    "Leave it out; if it belongs to the machine, please report it.",
)
_ASKING = frozenset({"h", "help", "version"})
_ANSWERS_HELP = frozenset(
    (
        *("M", "machine", "cpu", "accel", "device", "d", "trace", "audiodev", "chardev"),
        *("netdev", "nic", "drive", "global", "object", "vga", "audio", "display"),
    )
)


@dataclass(frozen=True)
class UserMachine:
    """A machine to record, and what only its recording needs.

    `files` are the machine's input files: number n of `spec` is `files[n]`. Those in `folders`
    are not there yet: they are to be made of these, and take their names. `board` is
    the machine type, "" for the target's default; `ram_bytes` the size given by -m, if
    any. `own_ram` says that the user lays RAM out with memory backends, so that no
    other can take its place. `live_netdevs` is for command.Launch. `notes` are
    sentences for the user about what is different from a plain QEMU run.
    """

    spec: MachineSpec
    files: tuple[Path, ...] = ()
    board: str = ""
    ram_bytes: int | None = None
    own_ram: bool = False
    folders: Mapping[int, FatFolder] = field(default_factory=dict)
    live_netdevs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def parse_arguments(
    arguments: Sequence[str], target: str, shift: Shift | None = None
) -> UserMachine:
    """Turn arguments for `qemu-system-TARGET` into a machine.

    `shift` is the clock when the arguments have no -icount; without either it is the machine's
    `usual_shift`. Raises ArgumentRefused for what cannot be recorded or is not an argument QEMU
    takes.
    """
    reader = _Reader(target, shift)
    for option, value in _words(arguments):
        reader.take(option, value)
    return reader.machine()


def asks_only(arguments: Sequence[str]) -> bool:
    """Whether QEMU would only answer a question (`--version`, `-cpu help`) and exit."""
    previous = ""
    for word in arguments:
        if previous in _ANSWERS_HELP and (word in ("help", "?") or word.endswith(",help")):
            return True
        previous = _option_name(word)
        if previous in _ASKING:
            return True
    return False


def _option_name(word: str) -> str:
    """Return the option a word is, "" when it is none. `--m` is `-m` to QEMU."""
    if not word.startswith("-") or word == "-":
        return ""
    return word[2:] if word.startswith("--") else word[1:]


def _words(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each option with its value; a bare word is the first disk, as in QEMU."""
    words = iter(arguments)
    for word in words:
        option = _option_name(word)
        if not option:
            yield "hda", word
        elif _takes_value(option):
            value = next(words, None)
            if value is None:
                raise ArgumentRefused(f"-{option} lacks its value.", "Check the arguments.")
            yield option, value
        else:
            yield option, ""


def _takes_value(option: str) -> bool:
    if option in LEFT_OUT:
        return LEFT_OUT[option].takes_value
    return option not in FLAGS and option not in _VALUELESS


# Options without a value that are neither left out nor kept as they are.
_VALUELESS = frozenset(
    (
        *("nographic", "localtime", "preconfig", "daemonize"),
        *("semihosting", "xen-attach", "xen-domid-restrict", "h", "help", "version"),
    )
)


class _Reader:
    """Takes options one by one; `machine` gives the result."""

    def __init__(self, target: str, shift: Shift | None) -> None:
        self._target = target
        self._shift = shift
        self._options: list[Option] = []
        self._notes: list[str] = []
        self._accelerators: list[str] = []
        self._ram_bytes: int | None = None
        self._files = UserFiles()
        self._blocks = BlockNodes()
        self._network = UserNetwork(target)
        self._serial = UserSerial()
        self._special = self._handlers()

    def take(self, option: str, value: str) -> None:
        """Take in one option of the command line."""
        option = "machine" if option == "M" else option
        try:
            self._take(option, value)
        except ValueError as error:
            raise ArgumentRefused(
                f"-{option} {value}".rstrip() + f" cannot be recorded: {error}.", _UNKNOWN.instead
            ) from error

    def machine(self) -> UserMachine:
        """Put everything together."""
        self._note_accelerators()
        nodefaults = Flag("nodefaults") in self._options
        options = [
            *self._options,
            *self._blocks.disks(self._files),
            *self._network.options(),
            *self._serial.options(has_default=not nodefaults),
        ]
        try:
            spec = MachineSpec(self._target, tuple(options))
            shift = usual_shift(spec) if self._shift is None else self._shift
            spec = msgspec.structs.replace(spec, shift=shift)
        except ValueError as error:
            raise ArgumentRefused(
                f"This machine cannot be recorded: {error}.", "Check the arguments."
            ) from error
        for folder in self._files.folders.values():
            self._notes.append(
                f"{folder.folder} becomes a disk as it is now; nothing is written back to it"
            )
        if spec.overlaid():
            self._notes.append("the guest's writes to its disks are not kept in their images")
        return UserMachine(
            spec,
            tuple(self._files.paths),
            _last(spec, "machine", "type"),
            self._ram_bytes,
            own_ram=bool(
                _last(spec, "machine", "memory-backend")
                or any(node.get("memdev") for node in spec.properties("numa"))
            ),
            folders=self._files.folders,
            live_netdevs=self._network.live,
            notes=(*self._notes, *self._serial.notes),
        )

    def _note_accelerators(self) -> None:
        """Say that TCG runs the machine, where another was asked for and TCG was not."""
        if not self._accelerators or "tcg" in self._accelerators:
            return
        for name in self._accelerators:
            if name not in HARDWARE:
                refuse(f"-accel {name}", NOT_TCG)
        self._notes.append(f"-accel {self._accelerators[0]} is left out: {ONLY_TCG}")

    def _take(self, option: str, value: str) -> None:
        if option in REFUSED_OPTIONS:
            refuse(f"-{option}", REFUSED_OPTIONS[option])
        elif option in LEFT_OUT:
            note = LEFT_OUT[option].note
            if note and value != "none":  # -qmp none asks for nothing
                self._notes.append(f"-{option} is left out: {note}")
        elif option in self._special:
            self._keep(self._special[option](value))
        elif option in SHORTHANDS:
            self._keep(shorthand_disk(option, value, self._files))
        elif option in FLAGS:
            self._keep(Flag(option))
        elif option in FILES and (option, value) != ("bios", "none"):
            self._keep(File(option, self._files.add(value, f"-{option}")))
        elif option in TEXTS:
            self._keep(Text(option, value))
        else:
            refuse(f"-{option}", _UNKNOWN)

    def _keep(self, option: Option | None) -> None:
        if option is not None:
            self._options.append(option)

    def _handlers(self) -> dict[str, Callable[[str], Option | None]]:
        """Return what turns an option's value into a part of the machine."""
        files, serial, network = self._files, self._serial, self._network
        note = self._notes.append
        plain = useroptions.properties
        return {
            "machine": self._machine,
            "accel": self._accel,
            "nographic": lambda _: plain("machine", (("graphics", "off"),)),
            "cpu": lambda value: useroptions.cpu(value, note),
            "smp": lambda value: useroptions.smp(value, self._target),
            "m": self._memory,
            "icount": self._icount,
            "vga": useroptions.vga,
            "rtc": useroptions.rtc,
            "name": useroptions.name,
            "action": useroptions.action,
            "boot": lambda value: plain("boot", split(value, "order")),
            "numa": lambda value: plain("numa", split(value, "type")),
            "smbios": lambda value: plain("smbios", split(value), files),
            "fw_cfg": lambda value: plain("fw_cfg", split(value, "name"), files),
            "audiodev": lambda value: self._sound("audiodev", value),
            "audio": lambda value: self._sound("audio", value),
            "device": self._device,
            "semihosting": lambda _: self._semihosting("on"),
            "semihosting-config": self._semihosting,
            "object": lambda value: useroptions.object_(value, note),
            "global": useroptions.global_,
            "drive": lambda value: drive_disk(split(value), files),
            "blockdev": lambda value: self._blocks.add(value),
            "netdev": network.netdev,
            "nic": network.nic,
            "net": network.net,
            "serial": serial.serial,
            "chardev": serial.chardev,
            "mon": serial.mon,
            "monitor": serial.monitor,
            "parallel": serial.parallel,
            "debugcon": serial.debugcon,
        }

    def _machine(self, value: str) -> Option | None:
        machine, accelerators = useroptions.machine(value)
        self._accelerators += accelerators
        return machine

    def _accel(self, value: str) -> None:
        self._accelerators.append(useroptions.accelerator(value, self._notes.append))

    def _memory(self, value: str) -> Option:
        memory, size = useroptions.memory(value)
        self._ram_bytes = size or self._ram_bytes
        return memory

    def _icount(self, value: str) -> None:
        shift = useroptions.icount(value, self._notes.append)
        self._shift = self._shift if shift is None else shift

    def _device(self, value: str) -> Option | None:
        debugcon = useroptions.debugcon(value)
        if debugcon is None:
            return useroptions.device(value, self._files, self._notes.append)
        settings, chardev = debugcon
        for setting in settings:
            self._keep(setting)
        return self._serial.debugcon(f"chardev:{chardev}")

    def _semihosting(self, value: str) -> Option | None:
        if self._target not in SEMIHOSTING_TARGETS:
            refuse("-semihosting", SEMIHOSTING)
        option, chardev = useroptions.semihosting(value, self._notes.append)
        if chardev:
            self._serial.use(f"chardev:{chardev}")
        return option

    def _sound(self, option: str, value: str) -> Option:
        self._notes.append(f"-{option} {value}: the guest's sound is not heard")
        return useroptions.sound(option, value)


def _last(spec: MachineSpec, option: str, key: str) -> str:
    found = [properties.get(key) for properties in spec.properties(option)]
    return next((text for text in reversed(found) if text), "")
