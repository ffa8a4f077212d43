"""Names for addresses: from files, from memory, and told apart from wrong ones."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from retrograde.errors import UsageError
from retrograde.guests import builtin
from retrograde.index.symbols import symbols as module
from retrograde.index.symbols.elfpieces import Elf
from retrograde.index.symbols.kallsyms import Symbol
from retrograde.index.symbols.kernelplace import Memory
from retrograde.index.symbols.programplace import Place, Stay
from retrograde.index.symbols.symbolfile import SymbolFile, read_symbol_file
from retrograde.index.symbols.symbols import Symbols, build_symbols
from retrograde.index.tables.store import IndexStore
from retrograde.recording.bundle import Recording
from retrograde.timeline.storefiles import Checkpoint
from tests.command import assert_error, retrograde
from tests.index.kallsyms_writer import tables
from tests.index.symbols.test_kallsyms import kernel
from tests.recording.handmade import make_recording

BASE = 0xFFFFFFFF_8100_0000
SLIDE = 0x24C0_0000
ELFS = sorted((Path(builtin.__file__).parent / "tiny").glob("x86_64-*.elf"))
ALL = sorted(ELFS[0].parent.glob("*.elf"))


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
        has: Callable[[bytes], bool] = lambda wanted: ram.find(wanted, 0) >= 0  # noqa: E731
        monkeypatch.setattr(module, "last_memory", lambda *_: (Memory(ram, checkpoints), has))
        monkeypatch.setattr(module, "_kernel_at_end", lambda _: module._Kernel([], {}, {}))

    return put


def addresses_of(store: IndexStore) -> dict[str, int]:
    with store.connect() as connection:
        rows = connection.execute("SELECT name, address FROM symbols").fetchall()
    return dict(rows)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
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
    assert build_symbols(store, recording, [path]) == []
    assert addresses_of(store) == {s.name: s.address for s in linux(BASE + SLIDE)}


def test_system_map_of_a_kernel_without_kallsyms(
    recording: Recording, in_memory: Callable[..., None], tmp_path: Path
) -> None:
    in_memory(b"OSRELEASE=6.1\nSYMBOL(_stext)=%x\n" % (BASE + SLIDE))
    path = tmp_path / "System.map"
    path.write_text(f"{BASE:016x} T _stext\n{BASE + 16:016x} T do_exit\n")
    store = IndexStore(recording)
    build_symbols(store, recording, [path])
    assert addresses_of(store)["do_exit"] == BASE + SLIDE + 16


def test_system_map_of_another_kernel(
    recording: Recording, in_memory: Callable[..., None], tmp_path: Path
) -> None:
    in_memory(tables(linux(BASE), BASE))
    others = [s._replace(address=s.address + 32 * n) for n, s in enumerate(linux(BASE))]
    path = tmp_path / "System.map"
    path.write_text("".join(f"{s.address:016x} {s.type} {s.name}\n" for s in others))
    (trouble,) = build_symbols(IndexStore(recording), recording, [path])
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
        (tmp_path / "vmlinux").touch()
        troubles = build_symbols(store, recording, [tmp_path / "vmlinux"])
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


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`mapped(stays)`: where programs were found, None: that cannot be told."""

    def put(stays: list[Stay] | None) -> None:
        def search(_: Recording, programs: list[SymbolFile], __: object) -> tuple[object, object]:
            return [stays] * len(programs), lambda note: False

        monkeypatch.setattr(module, "_search", search)

    return put


STAYS = [Stay(Place(0x5000, 0x7F00_0000_0000), 100, 200), Stay(Place(0x6000, 0x1000), 0, 300)]


def test_programs_are_added_where_they_were(
    recording: Recording, in_memory: Callable[..., None], mapped: Callable[..., None]
) -> None:
    in_memory(tables(linux(BASE), BASE))
    mapped(STAYS)
    store = IndexStore(recording)
    assert build_symbols(store, recording, [ELFS[0]]) == []
    file = read_symbol_file(ELFS[0])
    symbol = next(one for one in file.symbols if one.type == "T")
    names = Symbols.load(store)
    assert names.lookup(BASE) == "startup_64"
    for (root, base), first, last in STAYS:
        for flags in (0, 0x18):  # of CR3
            found = names.lookup(symbol.address + base, first, root | flags)
            assert found is not None and found in {one.name for one in file.symbols}
        assert names.lookup(symbol.address + base, last, root) is None
        assert names.lookup(symbol.address + base, first, 0x7000) is None
    assert names.lookup(symbol.address) is None


def test_what_was_given_once_is_used_from_then_on(
    recording: Recording,
    in_memory: Callable[..., None],
    mapped: Callable[..., None],
    tmp_path: Path,
) -> None:
    in_memory(tables(linux(BASE), BASE))
    mapped(STAYS)
    store = IndexStore(recording)
    kernel = {symbol.name for symbol in linux(BASE)}
    one, other = ({s.name for s in read_symbol_file(path).symbols} for path in ELFS[:2])
    build_symbols(store, recording)
    assert set(addresses_of(store)) == kernel
    build_symbols(store, recording, [ELFS[0]])
    assert set(addresses_of(store)) == kernel | one
    build_symbols(store, recording, [ELFS[1]])
    assert set(addresses_of(store)) == kernel | one | other
    build_symbols(store, recording)
    assert set(addresses_of(store)) == kernel | one | other
    # A kernel's symbols take the place of a kernel's alone.
    path = tmp_path / "System.map"
    path.write_text(f"{BASE:016x} T _text\n{BASE + 16:016x} T only_in_the_map\n")
    build_symbols(store, recording, [path])
    assert set(addresses_of(store)) == {"_text", "only_in_the_map"} | one | other


def test_a_program_that_was_nowhere(
    recording: Recording,
    in_memory: Callable[..., None],
    mapped: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_memory(tables(linux(BASE), BASE))
    mapped([])
    store = IndexStore(recording)
    # Code that can only be where it was linked has its names there, in all spaces.
    assert build_symbols(store, recording, [ELFS[0]]) == []
    assert len(addresses_of(store)) > len(linux(BASE))
    store.drop("symbols")
    read = Elf._read

    def read_as_movable(elf: Elf) -> None:
        read(elf)
        elf.is_movable = True

    monkeypatch.setattr(Elf, "_read", read_as_movable)
    (trouble,) = build_symbols(store, recording, [ELFS[0]])
    assert "was not seen mapped in any process" in trouble
    assert set(addresses_of(store)) == {symbol.name for symbol in linux(BASE)}


def test_200_files(
    recording: Recording,
    in_memory: Callable[..., None],
    mapped: Callable[..., None],
    tmp_path: Path,
) -> None:
    in_memory(tables(linux(BASE), BASE))
    mapped(STAYS)
    files = [tmp_path / f"{number}-{'x' * 80}.elf" for number in range(200)]
    for number, file in enumerate(files):
        file.write_bytes(ELFS[0].read_bytes() + b"%d" % number)
    store = IndexStore(recording)
    assert build_symbols(store, recording, files) == []
    with store.connect(("symbols",)) as connection:
        ((count,),) = connection.execute("SELECT count(DISTINCT module) FROM symbols").fetchall()
    assert count == 200


def test_a_program_for_another_machine(
    recording: Recording, in_memory: Callable[..., None], tmp_path: Path
) -> None:
    in_memory(tables(linux(BASE), BASE))
    content = bytearray(ELFS[0].read_bytes())
    content[5], content[18:20] = 1, (0x9026).to_bytes(2, "little")
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is a program for Alpha, and the guest is"):
        build_symbols(IndexStore(recording), recording, [path])


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


@pytest.mark.qemu
@pytest.mark.usefixtures("probe")
def test_names_are_there_before_anybody_asked_for_them(copied: Callable[..., Path]) -> None:
    """No query has built the table; its place was empty until one did."""
    done = retrograde("last-write", "--json", copied("tiny"), "0x200000:8")
    assert done.json()["symbol"] is not None
