"""What a record of the probe says of an access: its bytes, its number, where it lies.

A record is one access as QEMU made it, of 1 to 16 bytes, also where it crosses a page;
`beyond` then says where the rest lies, which in physical memory may be anywhere. An
instruction that makes several accesses has several records at its position.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrograde.machine.probe.page import MOST_BYTES, PAGE_BYTES, RecordFlag

_ONE = np.uint64(1)


class Pieces(NamedTuple):
    """Accesses in the order they were made, one row for each page that one touches.

    `owners` are their indices, `paddrs` physical addresses, `data` the bytes in the order
    of memory, shape (rows, MOST_BYTES), of which the first `sizes` count.
    """

    owners: NDArray[np.intp]
    paddrs: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    data: NDArray[np.uint8]


def is_access(records: Any) -> Any:
    """Whether a record, or each of many, is of a memory access and not of a breakpoint."""
    return records["flags"] & RecordFlag.ACCESS != 0


def is_store(records: Any) -> Any:
    """Whether it is of a store."""
    return records["flags"] & RecordFlag.STORE != 0


def is_pushed(records: Any) -> Any:
    """Whether taking an interrupt or exception did it, and no instruction."""
    return records["flags"] & RecordFlag.DELIVERY != 0


def is_of_device(records: Any) -> Any:
    """Whether it went to a device and not to memory."""
    return records["flags"] & RecordFlag.IO != 0


def is_placed(records: Any) -> Any:
    """Whether it is known where in physical memory it went."""
    return records["flags"] & RecordFlag.NO_PADDR == 0


def counted_at(records: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return the position of the instruction that each is held to be of.

    What taking an interrupt or exception pushed is of the instruction before it.
    """
    positions: NDArray[np.uint64] = records["position"] - is_pushed(records).astype(np.uint64)
    return positions


def retired(records: NDArray[np.void]) -> NDArray[np.void]:
    """Return what instructions that retired did, at `counted_at`, in a copy.

    Those that faulted are left out.
    """
    kept: NDArray[np.void] = records[records["flags"] & RecordFlag.ATTEMPT == 0].copy()
    kept["position"] = counted_at(kept)
    return kept


def shown_after(records: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return the position of each at whose end memory shows it: also that of what faulted."""
    early = records["flags"] & (RecordFlag.DELIVERY | RecordFlag.ATTEMPT) != 0
    positions: NDArray[np.uint64] = records["position"] - early.astype(np.uint64)
    return positions


def data_of(record: Any) -> bytes:
    """Return the bytes that an access moved, in the order of memory."""
    return bytes(record["data"][: int(record["size"])])


def number_of(record: Any) -> int:
    """Return what an access moved as a number, in the byte order of the access."""
    order = "big" if record["flags"] & RecordFlag.BIG_ENDIAN else "little"
    return int.from_bytes(data_of(record), order)  # type: ignore[arg-type]


def numbers_of(records: NDArray[np.void]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the low and the high 64 bits of what accesses moved, as `number_of` has it."""
    sizes = records["size"].astype(np.int64)[:, None]
    columns = np.broadcast_to(np.arange(MOST_BYTES), records["data"].shape)
    is_big = (records["flags"] & RecordFlag.BIG_ENDIAN != 0)[:, None]
    columns = np.where(is_big, (sizes - 1 - columns) % MOST_BYTES, columns)
    words = np.take_along_axis(records["data"], columns, axis=1).view("<u8")
    return words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)


def in_first_page(records: NDArray[np.void]) -> NDArray[np.int64]:
    """Return how many bytes of each access are in the page it begins in."""
    room = PAGE_BYTES - (records["vaddr"] & np.uint64(PAGE_BYTES - 1)).astype(np.int64)
    return np.minimum(room, records["size"].astype(np.int64))


def touches(records: NDArray[np.void], first: Any, last: Any) -> NDArray[np.bool_]:
    """Whether each access touches physical memory from `first` to `last`, both included.

    These are addresses, or one for each record. What is not known to touch it does not.
    """
    first, last = np.asarray(first, np.uint64), np.asarray(last, np.uint64)
    here = in_first_page(records).astype(np.uint64)
    rest = records["size"].astype(np.uint64) - here
    near, far = records["paddr"], records["beyond"]
    # What has no address is at the end of all memory, where nothing is.
    begun = (near <= last) & (near + here - _ONE >= first)
    crossed = (rest > 0) & (far <= last) & (far + rest - _ONE >= first)
    found: NDArray[np.bool_] = begun | crossed
    return found


def pieces(records: NDArray[np.void]) -> Pieces:
    """Take accesses apart at the ends of pages: each piece lies in one place of memory."""
    here, sizes = in_first_page(records), records["size"].astype(np.int64)
    crossing = np.flatnonzero(here < sizes)
    owners = np.sort(np.concatenate([np.arange(len(records)), crossing]))
    chosen = records[owners]
    paddrs, data, counts = chosen["paddr"].copy(), chosen["data"].copy(), here[owners]
    second = np.searchsorted(owners, crossing, side="right") - 1
    skipped = here[crossing]
    paddrs[second] = records["beyond"][crossing]
    counts[second] = sizes[crossing] - skipped
    columns = (np.arange(MOST_BYTES) + skipped[:, None]) % MOST_BYTES
    data[second] = np.take_along_axis(data[second], columns, axis=1)
    return Pieces(owners, paddrs, counts, data)
