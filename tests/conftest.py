"""Recordings to test with, and the check that nothing is left behind.

Under xdist every worker makes its own recordings, in half a second each: nothing is
shared, so nothing needs a lock.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.guests.builtin import builtin_guest
from retrograde.machine.qemu import Qemu
from retrograde.recording.bundle import Recording
from tests import leftovers
from tests.command import retrograde
from tests.promises import pytest_sessionfinish as pytest_sessionfinish

Record = Callable[..., Recording]

# No test depends on timing: a machine that is busy is no failure.
hypothesis.settings.register_profile("retrograde", deadline=None)
hypothesis.settings.load_profile("retrograde")


@pytest.fixture(scope="session", autouse=True)
def private_tmpdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Our own TMPDIR, inherited by all we start, so that leftovers are seen to be ours."""
    place = tmp_path_factory.mktemp("tmpdir")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place))
        patch.setenv(leftovers.MARK, uuid.uuid4().hex)
        patch.setattr(tempfile, "tempdir", None)
        yield place


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_behind(
    private_tmpdir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No QEMU, no temporary folder and no draft outlives a module's tests."""
    yield
    gc.collect()  # a database nobody has closed goes with its owner
    assert leftovers.settled_qemus() == []
    assert leftovers.folders(private_tmpdir) == []
    assert leftovers.drafts(tmp_path_factory.getbasetemp()) == []


def find_qemu(target: str) -> Qemu:
    """Return QEMU for `target`; skip the test, with the reason, when it cannot be used."""
    try:
        if shutil.which("qemu-img") is None:
            pytest.skip("qemu-img is not installed")
        return Qemu.find(target)
    except EnvironmentLacks as error:
        pytest.skip(f"{error.what} {error.remedy}")


def qemu_that_replays(target: str) -> Qemu:
    """Return QEMU for `target`, as `find_qemu` does.

    QEMU 7.2 cannot replay these from a snapshot: "Missing ... event" (docs/quirks.md).
    """
    qemu = find_qemu(target)
    if target.startswith(("ppc64", "mips")) and qemu.version < (8,):
        pytest.skip(f"this QEMU does not replay {target} from a snapshot")
    return qemu


@pytest.fixture(scope="session")
def qemu() -> Qemu:
    """QEMU for x86_64."""
    return find_qemu("x86_64")


@pytest.fixture(scope="session")
def probe(qemu: Qemu) -> None:
    """Skips, with the reason, what needs the probe where QEMU cannot carry it (before 10.0)."""
    from retrograde.machine.probe.support import require_probe

    try:
        require_probe(qemu.path)
    except EnvironmentLacks as error:
        pytest.skip(f"{error.what} {error.remedy}")


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """`recorded(name="tiny", target="x86_64")`: a recording of that built-in guest.

    Made once a session; do not change it (see `copied`).
    """
    made: dict[tuple[str, str], Recording] = {}

    def get(name: str = "tiny", target: str = "x86_64") -> Recording:
        if (name, target) not in made:
            find_qemu(target)
            guest = builtin_guest(name, target)
            output = tmp_path_factory.mktemp("recorded") / f"{target}-{name}.retro"
            # In a process of its own, because an async test may be the first to ask.
            retrograde(*("record", "-o", output, "--target", target, "--"), *guest.qemu_args)
            made[name, target] = Recording.open(output)
        return made[name, target]

    return get


@pytest.fixture
def copied(recorded: Record, tmp_path: Path) -> Callable[..., Path]:
    """`copied(name, target)`: a copy of that recording, without its cache, to spoil."""

    def get(name: str = "tiny", target: str = "x86_64") -> Path:
        original = recorded(name, target).path
        cache = shutil.ignore_patterns("cache")
        copy = tmp_path / original.name
        return Path(shutil.copytree(original, copy, symlinks=True, ignore=cache))

    return get
