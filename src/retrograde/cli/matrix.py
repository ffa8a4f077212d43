"""`retrograde matrix`: what the QEMUs here can record, replay and reverse."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from retrograde.cli import signals
from retrograde.cli.arguments import positive
from retrograde.cli.output import JSON_OPTION, counting, print_json, print_table, say
from retrograde.errors import EnvironmentLacks, QemuError, UsageError
from retrograde.guests import Guest, board_guest, boards
from retrograde.machine.qemu import Qemu, install_hint, installed_targets
from retrograde.machine.userfolder import cannot_keep, user_folder
from retrograde.recording.claim import made_whole, writing
from retrograde.verify.matrix import Report, run_matrix
from retrograde.verify.matrixhtml import page
from retrograde.verify.matrixmodel import CHECKS, Cell, Subject

PROCESSES = 4
"""Copies of a guest's RAM that a trial has at a time, at most."""

OVERHEAD = 400 << 20
"""Bytes a trial takes beside guest RAM."""


class Document(msgspec.Struct, frozen=True):
    """The JSON document. `reversible` counts the boards that go back in the middle."""

    reversible: int
    cells: list[dict[str, object]]


@click.command("matrix")
@click.option("--targets", metavar="A,B,...", help="Only these: x86_64,aarch64 or x86_64:q35.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also this report.")
@click.option("--jobs", type=click.IntRange(1), help="Boards tried at a time.")
@click.option("--deadline", type=float, callback=positive, default=600, show_default=True,
              help="Seconds for one board.")  # fmt: skip
@click.option("--again", is_flag=True, help="Try also what was tried before.")
@JSON_OPTION
def command(
    targets: str | None,
    html: Path | None,
    jobs: int | None,
    deadline: float,
    again: bool,
    as_json: bool,
) -> None:
    """Try every board of every qemu-system-* on PATH.

    Each is recorded, replayed, loaded from a checkpoint, stepped and run both ways, and
    compared with slow forward replays. Results are kept, so that an interrupted matrix
    goes on where it was. Exit code 1 when a board fails, 3 when there is no QEMU.
    """
    subjects, absent = _subjects(targets)
    with _progress(len(subjects)) as report:
        found = signals.run(
            run_matrix(
                subjects,
                cache=_cache(),
                jobs=jobs or os.cpu_count() or 1,
                deadline=deadline,
                again=again,
                report=report,
            )
        )
    cells = [*found, *absent]
    if html:
        with made_whole(html) as partial, writing(html):
            partial.write_text(page(cells), encoding="utf-8")
    reversible = sum(cell.reverses for cell in cells)
    if as_json:
        print_json(Document(reversible, [_told(cell) for cell in cells]))
    else:
        rows = [_row(cell) for cell in cells]
        print_table(("target", "board", "passed", "result"), rows)
        say(f"{reversible} of {len(cells)} boards go backwards in the middle of their run.")
    if any(cell.verdict == "fails" for cell in cells):
        raise SystemExit(1)


def _subjects(asked: str | None) -> tuple[list[Subject], list[Cell]]:
    """Return the cells to try, and those that cannot be; in the order of their targets."""
    wanted = _wanted(asked) if asked else dict.fromkeys(installed_targets())
    if not wanted:
        raise EnvironmentLacks("No qemu-system-* is on PATH.", install_hint("x86_64"))
    subjects: list[Subject] = []
    absent: list[Cell] = []
    for target, named in wanted.items():
        try:
            qemu = Qemu.find(target)
        except (EnvironmentLacks, QemuError) as error:
            absent.append(Cell(target=target, board="", absent=f"{error.what} {error.remedy}"))
            continue
        chosen = boards(target) if named is None else tuple(named)
        if not chosen:
            why = "no guest of ours, and no firmware of QEMU's that prints, for this target"
            absent.append(_absent(qemu, "", why))
        for board in chosen:
            guest = board_guest(target, board)
            if guest is None:
                absent.append(_absent(qemu, board, f"nothing to run on {board}"))
            elif qemu.machine_type(guest.machine) is None:
                absent.append(_absent(qemu, board, f"this QEMU has no {guest.machine}"))
            else:
                subjects.append(_subject(qemu, board, guest))
    return subjects, absent


def _wanted(asked: str) -> dict[str, list[str] | None]:
    """Turn "x86_64:q35,arm" into targets and their boards; None for all of them."""
    wanted: dict[str, list[str] | None] = {}
    for part in filter(None, asked.split(",")):
        target, colon, board = part.strip().partition(":")
        if not target or (colon and not board):
            raise UsageError(f"{part!r} is no target.", "Name it like x86_64, or x86_64:q35.")
        named = wanted.setdefault(target, [] if colon else None)
        if named is not None and colon:
            named.append(board)
        else:
            wanted[target] = None
    return wanted


def _subject(qemu: Qemu, board: str, guest: Guest) -> Subject:
    megabytes = int(guest.qemu_args[guest.qemu_args.index("-m") + 1])
    return Subject(
        target=qemu.target,
        board=board,
        guest=guest.name,
        program=str(qemu.path),
        version=qemu.full_version,
        qemu_sha256=qemu.digest,
        arguments=tuple(guest.qemu_args),
        files=tuple(str(path) for path in guest.files),
        done=guest.done,
        seconds=guest.seconds,
        memory=OVERHEAD + PROCESSES * (megabytes << 20),
    )


def _absent(qemu: Qemu, board: str, why: str) -> Cell:
    return Cell(
        target=qemu.target,
        board=board,
        version=qemu.full_version,
        qemu_sha256=qemu.digest,
        absent=why,
    )


def _row(cell: Cell) -> Sequence[str]:
    passed = sum(cell.outcome(name) in ("ok", "quirk") for name in CHECKS)
    return (cell.target, cell.board, f"{passed} of {len(CHECKS)}", cell.sentence)


def _told(cell: Cell) -> dict[str, object]:
    """Return a cell as JSON has it: with what follows from its checks."""
    facts = {"verdict": cell.verdict, "sentence": cell.sentence, "reverses": cell.reverses}
    return {**msgspec.to_builtins(cell), **facts}


def _cache() -> Path:
    folder = user_folder("XDG_CACHE_HOME", ".cache") / "matrix"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_keep("The matrix", folder, error, "XDG_CACHE_HOME") from error
    return folder


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Report]:
    """Show how many cells are done, and what is being done in the others."""
    with counting("boards", total) as show:
        doing: dict[str, str] = {}
        done = 0

        def report(subject: Subject, what: str) -> None:
            nonlocal done
            if what:
                doing[subject.name] = what
            else:
                doing.pop(subject.name, None)
                done += 1
            show(done, ", ".join(f"{name}: {what}" for name, what in doing.items()))

        yield report
