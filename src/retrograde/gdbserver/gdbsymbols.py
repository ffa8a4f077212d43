"""`retro symbols`: symbols where their code ran: a kernel's, its modules', user programs'.

A kernel with KASLR runs elsewhere than it was linked for, and so do most programs. The server
finds in the guest's memory where (`monitor kernel`, `monitor program`); here gdb is told so. The
per-cpu section is linked at zero and stays there: its symbols are offsets.

Sourced by gdbinit.py, of which it has `ask`. Runs in gdb's own Python (3.7 and later).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gdb  # type: ignore[import-untyped]  # known only inside gdb
from elfpieces import Damaged, Elf  # type: ignore[import-not-found]

_ANSWER = re.compile(r"^(\w+) (0x[0-9a-f]+)$", re.M)
_HANDLER = re.compile(r"^handler (\w+) (0x[0-9a-f]+)$", re.M)
_AT = re.compile(r"\b(0x[0-9a-f]+)\b")
_SECTION = re.compile(r"\]\s+0x([0-9a-f]+)->0x[0-9a-f]+ at 0x[0-9a-f]+: (\S+) ALLOC")
_DEBUG_MODULES = Path("/usr/lib/debug/lib/modules")
_DOUBT = (
    "warning: {} is not of what ran here: its build id, or its code where it has none, is nowhere "
    "in the guest's memory. Its names are likely wrong.\n"
)
_MODULES = ("*.ko", "*.ko.debug")
_PLACE = re.compile(r"^(here|place|stay) (0x[0-9a-f]+) ", re.M)
_TOLD = 4
"""Places of a program that are listed."""
_AT_MOST = 32
"""Places of a program that gdb has its symbols at."""
_NAME = re.compile(r"[\w.]([\w.+~-]*\w)?", re.ASCII)
"""What the guest's memory may name: words of it come into commands of gdb's and into paths."""
_MANY = 10_000
"""Modules, or sections of one: a guest's list may go round and round."""
_WORD = (1 << 64) - 1
_FEWEST = 2
"""Handlers of exceptions that must be moved by as much."""
_PAGE = 4096


class _Section:
    """A section of the file that gdb has loaded: where it is."""

    def __init__(self, start: str, name: str) -> None:
        self.name = name
        self.start = int(start, 16)


class _Answer:
    """What the server knows of the guest's kernel, and pcs met at its checkpoints."""

    def __init__(self, text: str) -> None:
        found = [(name, int(value, 16)) for name, value in _ANSWER.findall(text)]
        self.anchors = {name: value for name, value in found if name != "pc"}
        self.pcs = [value for name, value in found if name == "pc"]
        self.handlers = [(name, int(value, 16)) for name, value in _HANDLER.findall(text)]


_is_loading = False
"""Whether what `symbol-file` loads is our own doing."""

_programs: dict[Path, list[str]] = {}
"""The files that were loaded beside a kernel's, and the commands that did it."""


def load(ask: Callable[[str], str], file: Path) -> None:
    """Load the symbols of `file` at the addresses where they were when its code ran.

    A kernel's replace those of another, a program's are added.
    """
    global _is_loading
    elf = _elf(file)
    _is_loading = True
    try:
        answer = _Answer(ask("kernel"))
        if elf.is_kernel:
            _programs.pop(file, None)
            _load_kernel(answer, file)
            for command in itertools.chain.from_iterable(_programs.values()):
                _quietly(command)
            is_found = False
        else:
            is_found = _load_program(ask, elf, file)
        if not is_found and _is_strange(ask, answer, elf):
            gdb.write(_DOUBT.format(file.name), gdb.STDERR)
    finally:
        _is_loading = False


def _elf(file: Path) -> Any:
    try:
        elf = Elf(file)
    except OSError as error:
        raise gdb.GdbError(f"{file} cannot be read: {error.strerror}.") from None
    except Damaged:
        raise gdb.GdbError(f"{file} is no ELF file, or a damaged one.") from None
    if not elf.has_symbols:
        raise gdb.GdbError(f"{file} has no symbols: it was stripped.")
    return elf


def _load_kernel(answer: _Answer, file: Path) -> None:
    slide, fixed = _plan(answer, file)
    _forget()
    if slide:
        stay = "".join(f" -s {name} {address:#x}" for name, address in fixed)
        _quietly(f"add-symbol-file {_quoted(file)} -o {slide:#x}{stay}")
        gdb.write(f"{file.name} is moved by {slide:#x}: the kernel ran there.\n")
    else:
        _quietly(f"symbol-file {_quoted(file)}")


def _load_program(ask: Callable[[str], str], elf: Any, file: Path) -> bool:
    """Load a program's symbols beside what is loaded; returns whether it was seen mapped.

    They are loaded once for each place where a process has it, so that its names are known in all.
    """
    bases = _bases(ask, elf, file)
    name, loaded = _quoted(file), _programs.get(file, [])
    if elf.is_movable:
        commands = [f"add-symbol-file {name} -o {base:#x}" for base in bases or [0]]
        guess = f"add-symbol-file {name} -o 0x0"
        if bases and loaded == [guess]:
            _quietly(f"remove-symbol-file {name}")
            loaded = []
    else:
        alone = not gdb.objfiles()
        commands = loaded or [f"{'symbol-file' if alone else 'add-symbol-file'} {name}"]
    # What is in place stays: gdb's breakpoints are in it.
    new = [command for command in commands if command not in loaded]
    for command in new:
        _quietly(command)
    _programs[file] = loaded + new
    return bool(bases)


def _bases(ask: Callable[[str], str], elf: Any, file: Path) -> list[int]:
    """Find and tell where a program is mapped, the place here first; empty where nobody knows."""
    kind = "movable" if elf.is_movable else "fixed"
    pieces = " ".join(f"{address:x}:{content.hex()}" for address, content in elf.pieces())
    found = _PLACE.findall(ask(f"program {kind} {elf.entry:x} {pieces}"))
    places = list(dict.fromkeys((int(base, 16), kind == "here") for kind, base in found))
    here = [base for base, is_here in places if is_here]
    others = [base for base, _ in places if base not in here]
    if not elf.is_movable:
        return [0] if 0 in here + others else []
    listed = ", ".join(f"{base:#x}" for base in others[:_TOLD]) + ", …" * (len(others) > _TOLD)
    if here:
        also = f", and in other processes at {listed}" if others else ""
        gdb.write(f"{file.name} is mapped at {here[0]:#x} here{also}.\n")
    elif others:
        gdb.write(f"{file.name} is mapped at {listed}, not in the process that is current here.\n")
    else:
        gdb.write(
            f"{file.name} is not mapped here, and was not at any checkpoint: "
            "its names are where it was linked.\n"
        )
    return (here + others)[:_AT_MOST]


def place_again(ask: Callable[[str], str]) -> None:
    """Move a kernel's symbols that were just loaded where they were linked."""
    objfiles = gdb.objfiles()
    file = objfiles[0].filename if objfiles else None
    if _is_loading or file is None or _address_of("_stext") is None:
        return
    anchors = _Answer(ask("kernel")).anchors
    if any(_address_of(name) not in (None, address) for name, address in anchors.items()):
        load(ask, Path(file))


def place_programs(ask: Callable[[str], str]) -> None:
    """Move programs' symbols to where the programs are at this position."""
    for file in list(_programs):
        load(ask, file)


def load_modules(folders: Sequence[Path]) -> None:
    """Load the symbols of the modules that the guest has loaded here."""
    try:
        modules = dict(_modules())
        release = _name(gdb.parse_and_eval("init_uts_ns.name.release"))
    except gdb.error:
        return  # no Linux, or not yet, or its file has no types
    places = folders or ([_DEBUG_MODULES / release] if release else [])
    known = _files_in(places) if modules else {}
    for name, sections in sorted(modules.items()):
        file = known.get(name)
        if file is None:
            gdb.write(f"No file of module {name} was found: name its folder.\n")
        elif ".text" in sections:
            at_each = "".join(f" -s {one} {at:#x}" for one, at in sorted(sections.items()))
            _quietly(f"add-symbol-file {_quoted(file)}{at_each}")
            gdb.write(f"{name} is at {sections['.text']:#x}\n")


def _plan(answer: _Answer, file: Path) -> tuple[int, list[tuple[str, int]]]:
    """Return how far the file's code was moved, and the sections that were not."""
    if not answer.anchors and not answer.handlers:
        return 0, []
    _forget()
    _quietly(f"symbol-file -readnever {_quoted(file)}")
    for name, ran in answer.anchors.items():
        linked = _address_of(name)
        if linked is not None:
            return (ran - linked) & _WORD, _below(linked)
    places = [(ran, _address_of(name)) for name, ran in answer.handlers]
    both = [(ran, linked) for ran, linked in places if linked is not None]
    slides = {ran - linked for ran, linked in both}
    # As index/symbols/entrypoints.py has it: a name may be of something else, not two of them.
    if len(both) < _FEWEST or len(slides) > 1 or (slide := slides.pop()) % _PAGE:
        return 0, []
    return slide & _WORD, _below(both[0][1])


def _below(linked: int) -> list[tuple[str, int]]:
    """Return the sections far below an address of the code: their symbols are offsets."""
    return [(one.name, one.start) for one in _sections_loaded() if one.start < linked // 2]


def _is_strange(ask: Callable[[str], str], answer: _Answer, elf: Any) -> bool:
    """Whether the guest's memory does not know the file.

    Its build id decides, which is in memory with it; without one its code is looked for.
    """
    if elf.note:
        return ask(f"memory-has {elf.note.hex()}") == "no\n"
    if not answer.pcs or any(_is_known(pc) for pc in answer.pcs):
        return False
    code = elf.sample()
    return bool(code) and ask(f"memory-has {code.hex()}") == "no\n"


def _sections_loaded() -> list[_Section]:
    text = gdb.execute("maintenance info sections -all-objects", to_string=True)
    return [_Section(*found) for found in _SECTION.findall(text)]


def _is_known(pc: int) -> bool:
    return "No symbol" not in gdb.execute(f"info symbol {pc:#x}", to_string=True)


def _address_of(name: str) -> int | None:
    try:
        text = gdb.execute(f"info address {name}", to_string=True)
    except gdb.error:
        return None
    found = _AT.search(text)
    return int(found.group(1), 16) if found else None


def _forget() -> None:
    if gdb.objfiles():
        _quietly("symbol-file")


def _quietly(line: str) -> None:
    gdb.execute("with confirm off -- " + line, to_string=True)


def _quoted(file: Path) -> str:
    return '"' + str(file).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _modules() -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the names of the kernel's modules, and where their sections are."""
    kind = gdb.lookup_type("struct module")
    offset = next(field.bitpos // 8 for field in kind.fields() if field.name == "list")
    head = gdb.parse_and_eval("&modules")
    entry = head.dereference()["next"]
    for _ in range(_MANY):
        if int(entry) == int(head):
            break
        module = gdb.Value(int(entry) - offset).cast(kind.pointer()).dereference()
        if name := _name(module["name"]):
            yield name, dict(_sections(module))
        entry = entry.dereference()["next"]


def _sections(module: Any) -> Iterator[tuple[str, int]]:
    attributes = module["sect_attrs"].dereference()
    for number in range(min(int(attributes["nsections"]), _MANY)):
        one = attributes["attrs"][number]
        name = _name(one["battr"]["attr"]["name"])
        if name and not name.startswith((".init", ".note", ".gnu")):
            yield name, int(one["address"])


def _name(value: Any) -> str:
    """Return a name in the guest's memory, empty where it is none that a kernel gives."""
    text: str = value.string(errors="replace")
    return text if _NAME.fullmatch(text) else ""


def _files_in(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the files of modules below some folders, by the module's name."""
    files = (file for folder in folders for ending in _MODULES for file in folder.rglob(ending))
    return {file.name.partition(".ko")[0].replace("-", "_"): file for file in files}
