"""Guest RAM as memory we share with QEMU: reading it is reading a map.

The RAM is an anonymous memory file (memfd) that QEMU opens as /dev/fd/N through
`memory-backend-file,share=on`. It has no name, so nothing can be left behind; a
recording made with a shared file must be replayed with one, because the backend names
the RAM block in snapshots (QEMU: backends/hostmem-file.c, migration/ram.c).
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIGEST_BYTES = 16
MIB = 1 << 20


class GuestRam:
    """`size` bytes of guest RAM; `fd` is what QEMU inherits.

    None of it is seen of a machine whose RAM is QEMU's own: there `size` is 0.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.fd = os.memfd_create("guest-ram")
        os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd if size else -1, size or 1)

    def view(self) -> memoryview:
        """Return the bytes in place. Valid until `close`; changes while the guest runs."""
        return memoryview(self._map)[: self.size]

    def array(self) -> NDArray[np.uint8]:
        """Return the bytes in place as an array of shape (size,)."""
        import numpy as np

        return np.frombuffer(self._map, dtype=np.uint8, count=self.size)

    def present(self) -> NDArray[np.bool_]:
        """Return for each MiB whether memory was allocated in it; the rest is zero."""
        import numpy as np

        present = np.zeros(-(-self.size // MIB), dtype=np.bool_)
        at = 0
        with contextlib.suppress(OSError):  # ENXIO: no data from here on
            while at < self.size:
                at = os.lseek(self.fd, at, os.SEEK_DATA)
                hole = os.lseek(self.fd, at, os.SEEK_HOLE)
                present[at // MIB : -(-hole // MIB)] = True
                at = hole
        return present

    def release_zeros(self) -> None:
        """Give back the memory of each MiB that is all zero; the guest must be stopped.

        QEMU looks at every page when it loads a snapshot with RAM (ram_handle_zero in its
        migration/ram.c), and looking at a hole of a memory file allocates it.
        """
        ram = self.array()
        for number in self.present().nonzero()[0].tolist():
            start, stop = number * MIB, min((number + 1) * MIB, self.size)
            if not ram[start:stop].any():
                self._map.madvise(mmap.MADV_REMOVE, start, stop - start)

    def digest(self) -> str:
        """Return BLAKE2b of all RAM in hex; the guest must be stopped."""
        return hashlib.blake2b(self.view(), digest_size=DIGEST_BYTES).hexdigest()

    def close(self) -> None:
        """Give the memory back, unless somebody still holds a view of it."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        # A caller that kept an array keeps the map alive until the array goes.
        with contextlib.suppress(BufferError):
            self._map.close()
