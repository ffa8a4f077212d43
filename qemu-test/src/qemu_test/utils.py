"""Small services that tests import by name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import QEMUMachine


def get_usernet_hostfwd_port(vm: QEMUMachine) -> int | None:
    """Return the host's port of the first TCP forwarding into the guest; None without one."""
    text = str(vm.cmd("human-monitor-command", command_line="info usernet"))
    match = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)", text)
    return int(match[1]) if match else None


def pow2ceil(x: int) -> int:
    """Return the smallest power of two that is not below `x`."""
    return 1 if x < 2 else 1 << (x - 1).bit_length()


def file_truncate(path: str, size: int) -> None:
    """Make the file `path` `size` bytes long, if it is not."""
    if size != Path(path).stat().st_size:
        os.truncate(path, size)


def image_pow2ceil_expand(path: str) -> None:
    """Make the file `path` as long as the next power of two, as SD cards want it."""
    size = Path(path).stat().st_size
    os.truncate(path, pow2ceil(size))
