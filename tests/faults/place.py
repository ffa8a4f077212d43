"""Where a faulty run happens: a folder with copies of recordings, and what it must keep."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrograde.guests.builtin import builtin_guest
from retrograde.recording.bundle import Recording
from tests.command import retrograde
from tests.hostile import fingerprint
from tests.system import programs

CACHE = "cache"

_ASIDE = re.compile(r"\.partial\.\d+$")
"""What `record` makes of a killed one's recording: kept on purpose."""

_UNFINISHED = re.compile(r"\.partial$|\.part$|\.new$|^checkpoints\.\w{8}$|^\.nfs|\.tmp$")
"""Names of what is not whole, wherever it is."""


_PYTHONS = re.compile(r"[a-z0-9_]{8}")
"""An empty file by which Python's tempfile finds out that it can write to TMPDIR."""


@dataclass(frozen=True)
class Place:
    """One run's folder. TMPDIR has a short path, because gdb's socket must fit into one."""

    root: Path
    guest: tuple[str, ...]
    address: int
    """Where the guest has memory that is looked at."""

    @property
    def recording(self) -> Path:
        """The recording that commands are asked of."""
        return self.root / "a.retro"

    @property
    def other(self) -> Path:
        """The same once more, to compare with."""
        return self.root / "b.retro"

    @property
    def packed(self) -> Path:
        """The recording as an archive."""
        return self.root / "p.tar.zst"

    @property
    def out(self) -> Path:
        """Where commands write what they are asked to make."""
        return self.root / "out"

    @property
    def tmp(self) -> Path:
        """TMPDIR."""
        return self.root / "t"

    def own_files(self) -> dict[str, str]:
        """Return the digests of all that no command may change."""
        found: dict[str, str] = {}
        for folder in (self.recording, self.other):
            own = {name: it for name, it in fingerprint(folder).items() if not in_cache(name)}
            found |= {f"{folder.name}/{name}": digest for name, digest in own.items()}
        return found | {self.packed.name: fingerprint(self.root)[self.packed.name]}

    def leftovers(self) -> list[str]:
        """Return what is unfinished or in TMPDIR, but for recordings that were moved aside."""
        found = [path for path in self.tmp.rglob("*") if not _PYTHONS.fullmatch(path.name)]
        for folder in (self.recording, self.other, self.out):
            found += [path for path in folder.rglob("*") if _UNFINISHED.search(path.name)]
        return [str(path.relative_to(self.root)) for path in found]

    def made(self) -> list[str]:
        """Return the names in `out`, but for recordings that were moved aside."""
        return sorted(p.name for p in self.out.iterdir() if not _ASIDE.search(p.name))

    def aside(self) -> list[Path]:
        """Return what `record` moved aside."""
        return [path for path in self.out.iterdir() if _ASIDE.search(path.name)]

    def remove(self) -> None:
        """Remove the folder, and the small file systems in it."""
        for path in (self.out, self.tmp, self.root / "home", self.recording / CACHE):
            if path.is_mount():
                subprocess.run(["umount", "-l", path], check=True)
        shutil.rmtree(self.root, ignore_errors=True)


class Stock:
    """The undamaged recordings, made once, and the places that are made of them."""

    def __init__(self, base: Path | None = None, name: str = "tiny") -> None:
        self.root = Path(tempfile.mkdtemp(prefix="rf", dir=base))
        tiny = builtin_guest("tiny").qemu_args
        guest, address = (
            (tiny, 0x200000) if name == "tiny" else (programs.hello(self.root), 0xFFFF0)
        )
        self._original = Place(self.root / "original", tuple(guest), address)
        self._make()

    def place(self, cache: bool) -> Place:
        """Make a place; its recordings have checkpoints and an index, if `cache`."""
        root = Path(tempfile.mkdtemp(prefix="p", dir=self.root))
        place = dataclasses.replace(self._original, root=root)
        left_out = None if cache else shutil.ignore_patterns(CACHE)
        for folder in (place.recording, place.other):
            original = self._original.root / folder.name
            shutil.copytree(original, folder, symlinks=True, ignore=left_out)
        shutil.copyfile(self._original.packed, place.packed)
        place.out.mkdir()
        place.tmp.mkdir()
        return place

    def restore(self, place: Place, name: str) -> None:
        """Put back the file `name` of a place."""
        shutil.copyfile(self._original.root / name, place.root / name)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _make(self) -> None:
        place = self._original
        place.root.mkdir()
        steps: tuple[tuple[str | Path, ...], ...] = (
            ("record", "-o", place.recording, "--", *place.guest),
            ("pack", place.recording, "-o", place.packed),
            ("index", "--jobs", "1", place.recording),
        )
        for words in steps:
            done = retrograde(*words)
            assert done.status == 0, done.stderr
        Recording.open(place.recording).check_digests()
        shutil.copytree(place.recording, place.other, symlinks=True)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below `folder`, sorted, so that a seed names the same."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def in_cache(name: str) -> bool:
    """Whether a path relative to a recording is of its cache."""
    return Path(name).parts[0] == CACHE


def can_mount() -> str:
    """Return why no file system can be mounted here; empty where one can."""
    if os.geteuid():
        return "no file system can be mounted here: only root can"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4k", "none", folder], capture_output=True
        )
        if done.returncode:
            return f"no file system can be mounted here: {done.stderr.decode().strip()}"
        subprocess.run(["umount", folder], check=True)
    return ""
