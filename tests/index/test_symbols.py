"""Names for addresses: from files, from memory, and told apart from wrong ones."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from retrograde.errors import UsageError
from retrograde.guests import builtin
from retrograde.index import symbols as module
from retrograde.index.kallsyms import Symbol
from retrograde.index.store import IndexStore
from retrograde.index.symbolfile import read_symbol_file
from retrograde.index.symbols import Symbols, build_symbols
from retrograde.recording.bundle import Recording
from retrograde.timeline.storefiles import Checkpoint
from tests.command import assert_error, retrograde
from tests.index.kallsyms_writer import tables
from tests.index.test_kallsyms import kernel
from tests.recording.handmade import make_recording

BASE = 0xFFFFFFFF_8100_0000
SLIDE = 0x24C0_0000
ELFS = sorted((Path(builtin.__file__).parent / "tiny").glob("*.elf"))


def linux(base: int) -> list[Symbol]:
    anchors = [Symbol(base, "T", "_text"), Symbol(base, "T", "startup_64")]
    return anchors + kernel(1, base + 64, percpu=False)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return make_recording(tmp_path / "hand.retro")


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`in_memory(pieces, registers)`: what the recorded machine's RAM holds."""

    def put(*pieces: bytes, registers: tuple[int, ...] = ()) -> None:
        content = b"".join(piece + bytes(-len(piece) % 8) for piece in pieces)
        ram = mmap.mmap(-1, len(content) + 4096)
        ram.write(content)
        packet = b"".join(value.to_bytes(8, "little") for value in registers).hex()
        checkpoints = [Checkpoint(position=0, registers=packet, seconds=0.0)]
        monkeypatch.setattr(module, "last_memory", lambda *_: (ram, checkpoints))

    return put


def addresses_of(store: IndexStore) -> dict[str, int]:
    with store.connect() as connection:
        rows = connection.execute("SELECT name, address FROM symbols").fetchall()
    return dict(rows)


@pytest.mark.parametrize("path", ELFS, ids=lambda path: path.stem)
def test_elf_as_pyelftools_reads_it(path: Path) -> None:
    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        expected = {
            (symbol.name, symbol["st_value"])
            for symbol in table.iter_symbols()
            if symbol.name
            and not symbol.name.startswith("$")
            and symbol["st_info"]["type"] in ("STT_NOTYPE", "STT_OBJECT", "STT_FUNC")
            and symbol["st_shndx"] != "SHN_UNDEF"
        }
    found = read_symbol_file(path)
    assert {(symbol.name, symbol.address) for symbol in found.symbols} == expected
    assert expected


def test_the_kernels_own_symbols(recording: Recording, in_memory: Callable[..., None]) -> None:
    in_memory(tables(linux(BASE + SLIDE), BASE + SLIDE))
    store = IndexStore(recording)
    assert build_symbols(store, recording) == []
    assert addresses_of(store)["startup_64"] == BASE + SLIDE
    names = Symbols.load(store)
    assert names.lookup(BASE + SLIDE) == "startup_64"  # rather than _text
    assert names.lookup(BASE + SLIDE + 8) == "startup_64+0x8"
    assert names.lookup(BASE + SLIDE - 1) is None
    assert names.lookup(2**64 - 1) is None


def test_the_kernel_that_ran_is_not_the_copy(
    recording: Recording, in_memory: Callable[..., None]
) -> None:
    """A kernel file in the page cache, or what the loader left, is where it was linked."""
    ran, copy = linux(BASE + SLIDE), linux(BASE)
    for order in ((copy, ran), (ran, copy)):
        pieces = [tables(symbols, symbols[0].address) for symbols in order]
        in_memory(*pieces, registers=(5, ran[40].address, 2**64 - 1))
        store = IndexStore(recording)
        store.drop("symbols")
        build_symbols(store, recording)
        assert addresses_of(store)["_text"] == BASE + SLIDE


def test_system_map_moved_to_where_the_kernel_ran(
    recording: Recording, in_memory: Callable[..., None], tmp_path: Path
) -> None:
    in_memory(tables(linux(BASE + SLIDE), BASE + SLIDE))
    path = tmp_path / "System.map"
    path.write_text("".join(f"{s.address:016x} {s.type} {s.name}\n" for s in linux(BASE)))
    store = IndexStore(recording)
    assert build_symbols(store, recording, path) == []
    assert addresses_of(store) == {s.name: s.address for s in linux(BASE + SLIDE)}


def test_system_map_of_a_kernel_without_kallsyms(
    recording: Recording, in_memory: Callable[..., None], tmp_path: Path
) -> None:
    in_memory(b"OSRELEASE=6.1\nSYMBOL(_stext)=%x\n" % (BASE + SLIDE))
    path = tmp_path / "System.map"
    path.write_text(f"{BASE:016x} T _stext\n{BASE + 16:016x} T do_exit\n")
    store = IndexStore(recording)
    build_symbols(store, recording, path)
    assert addresses_of(store)["do_exit"] == BASE + SLIDE + 16


def test_system_map_of_another_kernel(
    recording: Recording, in_memory: Callable[..., None], tmp_path: Path
) -> None:
    in_memory(tables(linux(BASE), BASE))
    others = [s._replace(address=s.address + 32 * n) for n, s in enumerate(linux(BASE))]
    path = tmp_path / "System.map"
    path.write_text("".join(f"{s.address:016x} {s.type} {s.name}\n" for s in others))
    (trouble,) = build_symbols(IndexStore(recording), recording, path)
    assert "System.map is not of the kernel that ran" in trouble


def test_elf_by_its_build_id(
    recording: Recording,
    in_memory: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    note = b"\4\0\0\0\x14\0\0\0\3\0\0\0GNU\0" + bytes(range(20))
    given = module.SymbolFile("vmlinux", linux(BASE), {}, note, note[16:].hex())
    monkeypatch.setattr(module, "read_symbol_file", lambda *_, **__: given)
    for content, is_right in ((note, True), (note.replace(b"\7", b"\6"), False)):
        in_memory(tables(linux(BASE + SLIDE), BASE + SLIDE), content)
        store = IndexStore(recording)
        store.drop("symbols")
        troubles = build_symbols(store, recording, tmp_path / "vmlinux")
        assert (troubles == []) == is_right, troubles
        assert is_right or given.build_id in troubles[0]
        assert addresses_of(store)["_text"] == BASE + SLIDE


def test_no_symbols_anywhere_is_said_once(
    recording: Recording, in_memory: Callable[..., None]
) -> None:
    in_memory(bytes(5000))
    store = IndexStore(recording)
    (trouble,) = build_symbols(store, recording)
    assert "--symbols" in trouble
    assert build_symbols(IndexStore(recording), recording) == []
    assert Symbols.load(store).lookup(BASE) is None


def test_another_file_replaces_what_is_there(
    recording: Recording, in_memory: Callable[..., None], tmp_path: Path
) -> None:
    in_memory(tables(linux(BASE), BASE))
    store = IndexStore(recording)
    build_symbols(store, recording)
    build_symbols(store, recording, ELFS[0])
    own = {symbol.name for symbol in read_symbol_file(ELFS[0]).symbols}
    assert set(addresses_of(store)) == own
    # What was given once is used from then on.
    build_symbols(store, recording)
    assert set(addresses_of(store)) == own


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no symbols"),
        (b"ffffffffffffffff B The real System.map is elsewhere\n", "no symbols"),
        (b"\x7fELF", "damaged ELF"),
        (b"\x7fELF" + bytes(100), "damaged ELF"),
    ],
)
def test_files_without_symbols(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_symbol_file(path)


def test_truncated_elfs_are_refused_or_read(tmp_path: Path) -> None:
    whole = ELFS[0].read_bytes()
    path = tmp_path / "cut.elf"
    for size in range(0, len(whole), 61):
        path.write_bytes(whole[:size])
        with pytest.raises(UsageError):
            read_symbol_file(path)


@pytest.mark.qemu
def test_symbols_of_the_program_a_machine_was_started_with(copied: Callable[..., Path]) -> None:
    folder = copied()
    sql = "SELECT name, address FROM symbols WHERE main"
    rows = retrograde("query", "--json", folder, sql).json()
    elf = read_symbol_file(next((folder / "inputs").glob("*.elf")))
    expected = {symbol.address for symbol in elf.symbols if symbol.type not in "Aa"}
    assert {row["address"] for row in rows} == expected
    missing = retrograde("query", folder, sql, "--symbols", folder / "nothing")
    assert_error(missing, 2, "cannot be read")
