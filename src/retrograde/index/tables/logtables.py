"""Tables that the rr log holds already: no replay, seconds for the longest recordings.

Each is one file for the whole log, whose last events may lie a little after the
recording's end (see `recording.rrlog`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from retrograde.errors import RecordingError
from retrograde.index.tables.store import IndexStore
from retrograde.index.tables.tables import TABLES
from retrograde.recording import rrevents as rr
from retrograde.recording.bundle import Recording
from retrograde.recording.rrevents import Kind
from retrograde.recording.rrlog import Batch, RrLog

Columns = dict[str, NDArray[Any]]

LOG_TABLES: Final = tuple(table.name for table in TABLES.values() if table.source == "log")

# Kinds whose payload is one number of 64 bits.
_NUMBER = (
    Kind.BH,
    Kind.BH_ONESHOT,
    Kind.BLOCK,
    Kind.AUDIO_OUT,
    Kind.CLOCK_HOST,
    Kind.CLOCK_VIRTUAL_RT,
)
# QEMU passes the checkpoint only when a reset was asked for, right before it resets the machine
# (qemu_reset_requested in system/runstate.c).
_RESET = Kind.CHECKPOINT_RESET_REQUESTED
_PLAIN = (Kind.INPUT_SYNC, _RESET, *sorted(rr.SHUTDOWN_KINDS))
# Kinds with more to them: few in any log, so that they are decoded one by one.
_RICH = (
    Kind.INPUT,
    Kind.CHAR_READ,
    Kind.NET,
    Kind.CHAR_READ_ALL,
    Kind.CHAR_READ_ALL_ERROR,
    Kind.AUDIO_IN,
    Kind.RANDOM,
)
_NAMES = np.array([Kind(n).name.lower() if n in set(Kind) else "" for n in range(256)], object)
_NAMES[_RESET] = "reset"


def build_log_tables(
    store: IndexStore, recording: Recording, tables: Collection[str] = LOG_TABLES
) -> list[str]:
    """Write those of the log's `tables` that `store` lacks; says in words which cannot be.

    Raises LogCorrupt where the log is damaged, RecordingError where a file cannot be read,
    EnvironmentLacks when the disk is full.
    """
    wanted = [name for name in LOG_TABLES if name in tables and not store.done(name)]
    if not wanted:
        return []
    log = recording.log()
    stop = log.summary().last_position + 1
    troubles = []
    for name in wanted:
        try:
            columns = _columns(name, recording, log)
        except RecordingError as error:
            # The console needs more of the log than that it can be read.
            if name != "console" or isinstance(error.__cause__, OSError):
                raise
            troubles.append(f"There is no table console: {error.what}")
            continue
        store.write(name, 0, stop, columns)
    return troubles


def _columns(name: str, recording: Recording, log: RrLog) -> Columns:
    if name == "console":
        return console(recording)
    if name == "events":
        return events(log)
    return {"position": _positions_of(log, Kind[name.removesuffix("s").upper()])}


def console(recording: Recording) -> Columns:
    """Return the lines of the console, and of other ports that are kept, as columns.

    Raises RecordingError when the log does not say where its bytes were written.
    """
    rows = [
        (number, line, name)
        for name, text in recording.ports.items()
        for number, line in enumerate(text.lines())
    ]
    rows.sort(key=lambda row: row[1].first)
    return {
        "position": np.array([line.first for _, line, _ in rows], np.int64),
        "last": np.array([line.last for _, line, _ in rows], np.int64),
        "line": np.array([number for number, _, _ in rows], np.int64),
        "console_byte": np.array([line.index for _, line, _ in rows], np.int64),
        "text": _objects([line.text.decode(errors="replace") for _, line, _ in rows]),
        "port": _objects([name for _, _, name in rows]),
    }


def events(log: RrLog) -> Columns:
    """Return what came from outside the CPU as columns, in the order of the log."""
    parts = [_rich_events(log), *(_plain_events(batch) for batch in log.batches())]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["log_byte"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _plain_events(batch: Batch) -> Columns:
    chosen = np.flatnonzero(np.isin(batch.kind, (*_NUMBER, *_PLAIN)))
    kinds = batch.kind[chosen]
    numbered = np.isin(kinds, _NUMBER)
    values = np.full(chosen.size, None, object)
    high, low = (batch.words(chosen[numbered], at).astype(np.uint64) for at in (1, 5))
    values[numbered] = ((high << np.uint64(32)) | low).view(np.int64)
    return {
        "position": batch.position[chosen].astype(np.int64),
        "kind": _NAMES[kinds],
        "log_byte": batch.offset[chosen].astype(np.int64),
        "device": np.full(chosen.size, None, object),
        "value": values,
        "data": np.full(chosen.size, None, object),
        "detail": np.full(chosen.size, None, object),
    }


def _rich_events(log: RrLog) -> Columns:
    found = list(log.events(_RICH))
    told = [_tell(event) for event in found]
    return {
        "position": np.array([event.position for event in found], np.int64),
        "kind": _NAMES[np.array([event.kind for event in found], np.intp)],
        "log_byte": np.array([event.offset for event in found], np.int64),
        **{
            name: _objects([row[at] for row in told])
            for at, name in enumerate(("device", "value", "data", "detail"))
        },
    }


def _tell(event: rr.Event) -> tuple[int | None, int | None, bytes | None, str | None]:
    """Return the device, value, data and detail of an event."""
    match event:
        case rr.Input(action=action):
            kind = type(action).__name__.lower()
            fields = {"action": kind} | msgspec.structs.asdict(action)
            return None, None, None, msgspec.json.encode(fields).decode()
        case rr.CharRead(port=port, data=data):
            return port, None, data, None
        case rr.Net(filter=number, flags=flags, packet=packet):
            return number, flags, packet, None
        case rr.CharReadAll(data=data):
            return None, None, data, None
        case rr.CharReadAllError(error=error):
            return None, error, None, None
        case rr.Random(result=result, data=data):
            return None, result, data, None
        case _:
            return None, None, None, None


def _positions_of(log: RrLog, kind: Kind) -> NDArray[np.int64]:
    found = [batch.position[batch.kind == kind] for batch in log.batches()]
    return np.concatenate([np.zeros(0, np.uint64), *found]).astype(np.int64)


def _objects(values: list[Any]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array
