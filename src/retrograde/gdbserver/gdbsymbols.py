"""`retro symbols`: a file's symbols where its code ran, and those of a Linux kernel's modules.

A kernel with KASLR runs elsewhere than it was linked for. The server finds in the guest's memory
where (`monitor kernel`); here gdb is told so. The per-cpu section is linked at zero and stays
there: its symbols are offsets.

Sourced by gdbinit.py, of which it has `ask`. Runs in gdb's own Python (3.7 and later).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gdb  # type: ignore[import-untyped]  # known only inside gdb

_ANSWER = re.compile(r"^(\w+) (0x[0-9a-f]+)$", re.M)
_AT = re.compile(r"\b(0x[0-9a-f]+)\b")
_SECTION = re.compile(r"\]\s+0x([0-9a-f]+)->0x([0-9a-f]+) at 0x([0-9a-f]+): (\S+) ALLOC")
# Elf_Nhdr, the owner's name and the id, in either byte order (elf.h: NT_GNU_BUILD_ID is 3).
_BUILD_ID = re.compile(
    rb"(?s)(?:\x04\0\0\0\x14\0\0\0\x03\0\0\0|\0\0\0\x04\0\0\0\x14\0\0\0\x03)GNU\0.{20}"
)
_DEBUG_MODULES = Path("/usr/lib/debug/lib/modules")
_SAMPLE = 32
"""Bytes of code that tell a program from others."""
_DOUBT = (
    "warning: {} is not of what ran here: its build id, or its code where it has none, is nowhere "
    "in the guest's memory. Its names are likely wrong.\n"
)
_MODULES = ("*.ko", "*.ko.debug")
_NAME = re.compile(r"[\w.]([\w.+~-]*\w)?", re.ASCII)
"""What the guest's memory may name: words of it come into commands of gdb's and into paths."""
_MANY = 10_000
"""Modules, or sections of one: a guest's list may go round and round."""
_WORD = (1 << 64) - 1


class _Section:
    """A section of the file that gdb has loaded: where, and at which byte of the file."""

    def __init__(self, start: str, stop: str, offset: str, name: str) -> None:
        self.name = name
        self.start = int(start, 16)
        self.size = int(stop, 16) - self.start
        self.offset = int(offset, 16)


class _Answer:
    """What the server knows of the guest's kernel, and pcs met at its checkpoints."""

    def __init__(self, text: str) -> None:
        found = [(name, int(value, 16)) for name, value in _ANSWER.findall(text)]
        self.anchors = {name: value for name, value in found if name != "pc"}
        self.pcs = [value for name, value in found if name == "pc"]


_is_loading = False
"""Whether what `symbol-file` loads is our own doing."""


def load(ask: Callable[[str], str], file: Path) -> None:
    """Load the symbols of `file` at the addresses where they were when its code ran."""
    global _is_loading
    _is_loading = True
    try:
        answer = _Answer(ask("kernel"))
        _load(answer, file)
        if _is_strange(ask, answer, file):
            gdb.write(_DOUBT.format(file.name), gdb.STDERR)
    finally:
        _is_loading = False


def _load(answer: _Answer, file: Path) -> None:
    slide, fixed = _plan(answer, file)
    _forget()
    if slide:
        stay = "".join(f" -s {name} {address:#x}" for name, address in fixed)
        _quietly(f"add-symbol-file {_quoted(file)} -o {slide:#x}{stay}")
        gdb.write(f"{file.name} is moved by {slide:#x}: the kernel ran there.\n")
    else:
        _quietly(f"symbol-file {_quoted(file)}")


def place_again(ask: Callable[[str], str]) -> None:
    """Move a kernel's symbols that were just loaded where they were linked."""
    objfiles = gdb.objfiles()
    file = objfiles[0].filename if objfiles else None
    if _is_loading or file is None or _address_of("_stext") is None:
        return
    anchors = _Answer(ask("kernel")).anchors
    if any(_address_of(name) not in (None, address) for name, address in anchors.items()):
        load(ask, Path(file))


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
    if not answer.anchors:
        return 0, []
    _forget()
    _quietly(f"symbol-file -readnever {_quoted(file)}")
    for name, ran in answer.anchors.items():
        linked = _address_of(name)
        if linked is not None:
            low = [(one.name, one.start) for one in _sections_loaded() if one.start < linked // 2]
            return (ran - linked) & _WORD, low
    return 0, []


def _is_strange(ask: Callable[[str], str], answer: _Answer, file: Path) -> bool:
    """Whether the guest's memory does not know the file.

    Its build id decides, which is in memory with it; without one its code is looked for.
    """
    sections = _sections_loaded()
    with file.open("rb") as content:
        for section in sections:
            if section.name.startswith(".note"):
                content.seek(section.offset)
                if found := _BUILD_ID.search(content.read(section.size)):
                    return ask(f"memory-has {found.group().hex()}") == "no\n"
        if not answer.pcs or any(_is_known(pc) for pc in answer.pcs):
            return False
        code = next((one for one in sections if one.name == ".text"), None)
        if code is None:
            return False
        content.seek(code.offset + code.size // 2 // 16 * 16)
        return ask(f"memory-has {content.read(_SAMPLE).hex()}") == "no\n"


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
