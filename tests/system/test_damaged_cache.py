"""Damage to any file of a cache: the right answer or a sentence, one warning, and it is mended."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrograde.index.tables.store import IndexStore
from retrograde.machine.compat import qemu_for
from retrograde.recording.bundle import Recording
from retrograde.timeline.opening import checkpoints_of
from retrograde.verify.cache import check_cache
from tests.command import Done, assert_error, retrograde
from tests.conftest import Record
from tests.damage import break_states, cut, flip, move_positions, need_more
from tests.system.test_disk import cannot_mount

pytestmark = [pytest.mark.qemu, pytest.mark.gdb, pytest.mark.usefixtures("probe")]

DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {"flip": flip, "cut": cut}
CHECKPOINTS = (
    *("index.json", "index.copy.json", "pages.bin", "sums.bin", "tables.bin"),
    "machine.qcow2",
)
CALLS = "SELECT count(*) AS n, sum(position) AS at, count(return_position) AS back FROM calls"
LINES = "SELECT position, text FROM console ORDER BY line"
WROTE = "0x7ff0:8"


def cache_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "cache").rglob("*") if path.is_file())


def warnings(done: Done) -> list[str]:
    return [line for line in done.stderr.splitlines() if "warning: " in line]


class Answers:
    """What commands say of a recording; each is a real process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.end = Recording.open(folder).end

    def debug(self, *prefix: str) -> Done:
        """Look at registers and memory in the middle, where a checkpoint is loaded."""
        look = ("-ex", "info registers", "-ex", "x/64gx $sp & -4096", "-ex", "x/16i $pc")
        where = ("--at", str(self.end * 2 // 3))
        return retrograde("debug", self.folder, *where, "--", "-batch", *look, prefix=prefix)

    def last_write(self, *prefix: str) -> Done:
        return retrograde("last-write", self.folder, WROTE, "--physical", "--json", prefix=prefix)

    def query(self, sql: str, *prefix: str) -> Done:
        return retrograde("query", self.folder, sql, "--json", prefix=prefix)

    def plot(self) -> Done:
        picture = self.folder.parent / "plot.svg"
        picture.unlink(missing_ok=True)
        done = retrograde("info", self.folder, "--plot", picture)
        return Done(done.status, picture.read_bytes() if picture.exists() else b"", done.stderr)

    def export(self) -> Done:
        trace = self.folder.parent / "trace.perfetto"
        trace.unlink(missing_ok=True)
        done = retrograde("export", self.folder, "--perfetto", trace)
        return Done(done.status, trace.read_bytes() if trace.exists() else b"", done.stderr)

    def check(self) -> list[str]:
        recording = Recording.open(self.folder)
        return check_cache(recording, qemu_for(recording)).lost


def positions(folder: Path) -> list[int]:
    """Make the checkpoints where there are none, and return where they are."""
    recording = Recording.open(folder)
    store = asyncio.run(checkpoints_of(recording, qemu_for(recording)))
    store.close()
    return [one.position for one in store.checkpoints]


@pytest.fixture(scope="module")
def whole(recorded: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with all there can be in a cache; copy it."""
    folder = tmp_path_factory.mktemp("whole") / "a.retro"
    shutil.copytree(recorded("tiny").path, folder, symlinks=True)
    for words in (
        ("index", folder),
        ("index", folder, "--writes", "0x7000:4096"),
        ("query", folder, "SELECT count(*) FROM symbols"),
        ("debug", folder, "--", "-batch", "-ex", "monitor bookmark here"),
    ):
        assert retrograde(*words).status == 0
    return folder


@pytest.fixture(scope="module")
def expected(whole: Path) -> dict[str, bytes]:
    """What is said of it."""
    answers = Answers(whole)
    said = {
        "debug": answers.debug(),
        "last_write": answers.last_write(),
        "calls": answers.query(CALLS),
        "lines": answers.query(LINES),
        "plot": answers.plot(),
        "export": answers.export(),
    }
    assert [done.status for done in said.values()] == [0] * len(said), said
    assert json.loads(said["last_write"].stdout)["pc"]
    return {name: done.stdout for name, done in said.items()}


@pytest.fixture
def answers(whole: Path, tmp_path: Path) -> Answers:
    return Answers(Path(shutil.copytree(whole, tmp_path / "a.retro", symlinks=True)))


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_checkpoints(
    name: str, damage: str, answers: Answers, expected: dict[str, bytes]
) -> None:
    before = positions(answers.folder)
    DAMAGES[damage](answers.folder / "cache/checkpoints" / name, random.Random(name + damage))
    seen = answers.debug()
    assert (seen.status, seen.stdout) == (0, expected["debug"])
    lost = answers.check()  # what debug did not use is found now
    assert len(warnings(seen)) <= 1
    assert positions(answers.folder) == before
    assert answers.check() == []
    if not lost:
        assert len(warnings(seen)) == 1, "it was mended without a word"


@pytest.mark.parametrize("change", [move_positions, break_states, need_more])
def test_states_that_qemu_refuses(
    change: Callable[[Path], None], answers: Answers, expected: dict[str, bytes]
) -> None:
    """All checksums agree, as those of an author who means ill would."""
    change(answers.folder / "cache" / "checkpoints")
    for _ in range(2):  # with what is refused, and with what was made anew
        seen, wrote = answers.debug(), answers.last_write()
        assert (seen.status, seen.stdout) == (0, expected["debug"])
        assert (wrote.status, wrote.stdout) == (0, expected["last_write"])
    assert warnings(seen) == warnings(wrote) == []
    assert answers.check() == []


def test_a_page_that_is_used_is_never_shown_damaged(
    answers: Answers, expected: dict[str, bytes]
) -> None:
    """Damage to every page at once, so that whatever is looked at is damaged."""
    pages = answers.folder / "cache/checkpoints/pages.bin"
    data = bytearray(pages.read_bytes())
    data[4096 + 17 :: 4096] = bytes(byte ^ 4 for byte in data[4096 + 17 :: 4096])
    pages.write_bytes(data)
    seen = answers.debug()
    assert (seen.status, seen.stdout) == (0, expected["debug"])
    assert len(warnings(seen)) == 1
    assert "damaged" in seen.stderr
    wrote = answers.last_write()
    assert (wrote.status, wrote.stdout) == (0, expected["last_write"])
    assert warnings(wrote) == []


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_index(damage: str, answers: Answers, expected: dict[str, bytes]) -> None:
    """All files at once: what needs no index answers, the rest says what to do."""
    dice = random.Random(damage)
    files = sorted((answers.folder / "cache/index").glob("*/*.parquet"))
    for path in files:
        DAMAGES[damage](path, dice)
    seen = answers.debug()
    assert (seen.status, seen.stdout) == (0, expected["debug"])
    assert all("files damaged" in line for line in warnings(seen))
    assert len(warnings(seen)) == 3  # blocks, intervals, written
    wrote = answers.last_write()
    told = {**wrote.json(), "symbol": None}
    assert told == {**json.loads(expected["last_write"]), "symbol": None}
    lines = answers.query(LINES)
    assert (lines.status, lines.stdout) == (0, expected["lines"])  # made again at once
    for refused in (answers.query(CALLS), answers.plot(), answers.export()):
        assert_error(refused, 2, "table calls", "damaged", "retrograde index")
    assert retrograde("index", answers.folder).status == 0
    for name, done in (
        ("calls", answers.query(CALLS)),
        ("plot", answers.plot()),
        ("export", answers.export()),
    ):
        assert (done.status, done.stdout) == (0, expected[name]), done.stderr
    assert answers.check() == [f"{count_of(files, 'writes')} files of the table writes"]
    assert_error(answers.query("FROM writes"), 2, "--writes WHERE --from 0 --to")
    assert retrograde("index", answers.folder, "--writes", "0x7000:4096").status == 0
    assert answers.query("FROM writes").status == 0


def count_of(files: list[Path], table: str) -> int:
    return sum(path.parent.name == table for path in files)


def test_one_interval_is_made_again(answers: Answers, expected: dict[str, bytes]) -> None:
    index = answers.folder / "cache/index"
    path = sorted((index / "calls").iterdir())[-1]
    flip(path, random.Random(3))
    made = retrograde("index", answers.folder, "--json").json()
    assert made["intervals"] == 1
    done = answers.query(CALLS)
    assert (done.status, done.stdout, warnings(done)) == (0, expected["calls"], [])


@pytest.mark.parametrize("which", ["one", "all"])
def test_no_rows_in_place_of_what_was_written(
    which: str, answers: Answers, expected: dict[str, bytes]
) -> None:
    """A whole Parquet file without rows is not "nothing wrote there"."""
    written = answers.folder / "cache/index/written"
    store = IndexStore(Recording.open(answers.folder))
    store.write("written", 1 << 40, 1 << 41, {name: [] for name in COLUMNS})
    *files, empty = sorted(written.iterdir())
    wrote = json.loads(expected["last_write"])["position"]
    for path in files:
        first, last = (int(part) for part in path.name.split(".")[0].split("-"))
        if which == "all" or first <= wrote < last:
            shutil.copy(empty, path)
    empty.unlink()
    done = answers.last_write()
    assert (done.status, done.stdout) == (0, expected["last_write"])
    assert len(warnings(done)) == 1


COLUMNS = ("interval_first", "page", "bitmap", "device")


@pytest.mark.parametrize(("name", "damage"), [("meta.json", "flip"), ("meta.copy.json", "cut")])
def test_damaged_meta(name: str, damage: str, answers: Answers, expected: dict[str, bytes]) -> None:
    DAMAGES[damage](answers.folder / "cache/index" / name, random.Random(1))
    first, second = answers.query(CALLS), answers.query(CALLS)
    assert first.stdout == second.stdout == expected["calls"]
    assert (len(warnings(first)), warnings(second)) == (1, [])


def test_damaged_bookmarks(answers: Answers) -> None:
    flip(answers.folder / "cache/bookmarks.json", random.Random(1))
    asked = ("-ex", "monitor bookmarks")
    for count in (1, 0):
        done = retrograde("debug", answers.folder, "--", "-batch", *asked)
        assert b"here" in done.stdout + done.stderr.encode()
        assert len(warnings(done)) == count


def test_verify_looks_at_the_cache(answers: Answers) -> None:
    def verify() -> Any:
        return retrograde("verify", answers.folder, "--json").json()

    whole = verify()
    assert whole["cache"]["lost"] == []
    assert whole["cache"]["checkpoints"] == len(positions(answers.folder))
    files = len(list((answers.folder / "cache/index").glob("*/*.parquet")))
    assert whole["cache"]["index_files"] == files
    flip(answers.folder / "cache/checkpoints/tables.bin", random.Random(2))
    flip(next((answers.folder / "cache/index/calls").iterdir()), random.Random(2))
    done = retrograde("verify", answers.folder)
    assert done.status == 0
    assert len(warnings(done)) == 2
    assert b"checkpoints, 1 files of the table calls: not used any more" in done.stdout


def read_only(folder: Path) -> tuple[str, ...]:
    """Return what runs a command for which nothing in `folder` can be written."""
    if reason := cannot_mount():
        pytest.skip(f"no file system can be mounted here: {reason}")
    script = 'mount --bind -o ro "$0" "$0" && mount -o remount,bind,ro "$0" || exit 99; exec "$@"'
    return ("unshare", "-rm", "sh", "-c", script, str(folder))


def test_what_cannot_be_mended(answers: Answers, expected: dict[str, bytes]) -> None:
    """In a read-only place: the right answer without the cache, or a sentence."""
    cache, dice = answers.folder / "cache", random.Random(4)
    flip(cache / "checkpoints/machine.qcow2", dice)
    for path in (cache / "index").glob("*/*.parquet"):
        flip(path, dice)
    prefix = read_only(answers.folder)
    before = {path: path.read_bytes() for path in cache_files(answers.folder)}
    seen = answers.debug(*prefix)
    assert (seen.status, seen.stdout) == (0, expected["debug"]), seen.stderr
    assert any("cannot be written" in line for line in warnings(seen))
    wrote = answers.last_write(*prefix)
    assert wrote.json()["position"] == json.loads(expected["last_write"])["position"]
    assert_error(answers.query(LINES, *prefix), 3, "cannot be written", "Copy the recording")
    assert_error(answers.query(CALLS, *prefix), 3, "cannot be written", "Copy the recording")
    assert {path: path.read_bytes() for path in cache_files(answers.folder)} == before


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_file(whole: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """Each file of the cache alone, and all commands after each."""
    for path in cache_files(whole):
        dice = random.Random(str(path.relative_to(whole)))
        damage = dice.choice(sorted(DAMAGES))
        answers = Answers(Path(shutil.copytree(whole, tmp_path / "a.retro", symlinks=True)))
        DAMAGES[damage](answers.folder / path.relative_to(whole), dice)
        case = f"{damage} {path.relative_to(whole)}"
        for name, ask in (
            ("debug", answers.debug),
            ("last_write", answers.last_write),
            ("calls", lambda: answers.query(CALLS)),  # noqa: B023 - called at once
            ("lines", lambda: answers.query(LINES)),  # noqa: B023
            ("plot", answers.plot),
        ):
            done = ask()
            if done.status == 2 and name in ("calls", "plot"):
                assert_error(done, 2, "table calls", "damaged", "retrograde index")
                continue
            assert done.status == 0, (case, done.stderr)
            said, wanted = done.stdout, expected[name]
            if name == "last_write":
                said, wanted = (re.sub(rb'"symbol": .*', b"", text) for text in (said, wanted))
            assert said == wanted, (case, name, done.stderr)
        assert retrograde("index", answers.folder).status == 0
        done = answers.query(CALLS)
        assert (done.status, done.stdout) == (0, expected["calls"]), case
        shutil.rmtree(answers.folder)
