"""Every built-in guest runs to its end on real QEMU, computes the right sum, keeps its promises."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from retrograde.errors import UsageError
from retrograde.guests import builtin_boards, builtin_guest, builtin_names, builtin_targets
from tests.conftest import find_qemu
from tests.guests import sums

# Sums of guests without a model depend on where their code lies: take the new value
# after a change of source, once two QEMU versions agree on it.
_SUMS = {
    "tiny": sums.tiny,
    "pagefault": lambda: 0x1BE34AAF188EAE4D,
    "syscall": sums.syscall,
    "rep": sums.rep,
    "smc": sums.smc,
    "exceptions": lambda: 0x57FCF7C45F613C1D,
    "nested": sums.nested,
    "hot": sums.hot,
    "stacks": sums.stacks,
    "moves": sums.moves,
    "aliases": sums.aliases,
    "unaligned": lambda: 0x1D685FD08F4DDF27,
    "disks": lambda: 0x9B27C6622160EB78,
    "apic": sums.apic,
    "wide": lambda: 0x845BF96D338B7373,
}
_WIDE = {"aarch64": 0xC40799E5, "ppc64": 0xA26EE3D7}
_RAM_BASE = {
    "aarch64": 0x40000000,
    "arm": 0x40000000,
    "riscv64": 0x80000000,
    "riscv32": 0x80000000,
}
_BOARDS = [(target, board) for target in builtin_targets() for board in builtin_boards(target)]
_ALL = [(*of, name) for of in _BOARDS for name in builtin_names(*of)]


@pytest.mark.qemu
@pytest.mark.parametrize(("target", "board", "name"), _ALL)
def test_runs_to_power_off(target: str, board: str, name: str, tmp_path: Path) -> None:
    qemu = find_qemu(target)
    if board == "microvm" and qemu.version < (8,):
        pytest.skip("the timer of this QEMU's microvm interrupts nobody (docs/matrix.md)")
    guest = builtin_guest(name, target, board)
    arguments = list(guest.qemu_args)
    size = arguments[arguments.index("-m") + 1]
    arguments[arguments.index("-M") + 1] += ",memory-backend=ram"
    backend = f"memory-backend-file,id=ram,share=on,size={size}M,mem-path={tmp_path / 'ram'}"
    console = tmp_path / "console"
    subprocess.run(
        [
            *(str(qemu.path), *arguments, "-object", backend, "-icount", "shift=7"),
            *("-display", "none", "-net", "none", "-monitor", "none", "-no-reboot"),
            *("-serial", f"file:{console}"),
        ],
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )
    lines = console.read_text().splitlines()
    image_target = guest.files[0].name.split("-")[0]
    if image_target == "x86_64":
        expected, digits = _SUMS[name](), 16
    else:
        expected, digits = _portable(name, image_target), 8
    assert lines[0] == guest.start
    assert f"{name.upper()}-SUM {expected:0{digits}x}" in lines
    assert lines[-1] == guest.done
    if name == "rep":
        cuts = next(line for line in lines if line.startswith("REP-CUT "))
        assert int(cuts.split()[1], 16) > 1000
    assert guest.pattern is not None
    with (tmp_path / "ram").open("rb") as ram:
        ram.seek(guest.pattern.address - _RAM_BASE.get(target, 0))
        assert ram.read(len(guest.pattern.data)) == guest.pattern.data


def _portable(name: str, target: str) -> int:
    if name == "tiny":
        return sums.portable()
    if name == "frames":
        return sums.frames()
    if name == "faults":
        return sums.faults(target)
    return _WIDE[target] if name == "wide" else sums.portable_aliases(target)


def test_names_and_files() -> None:
    assert builtin_names()[0] == "tiny"
    for target, board, name in _ALL:
        guest = builtin_guest(name, target, board)
        assert (guest.name, guest.target) == (name, target)
        assert all(path.is_file() and str(path) in guest.qemu_args for path in guest.files)
        assert guest.files[0].stat().st_size < 16 * 1024


def test_unknown_guests_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as refused:
        builtin_guest("tinny")
    assert "tiny, pagefault" in refused.value.remedy
    with pytest.raises(UsageError) as refused:
        builtin_guest("tiny", "vax")
    assert "x86_64" in refused.value.remedy
