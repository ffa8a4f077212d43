"""What the probe needs from its surroundings: a QEMU that carries it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retrograde.errors import EnvironmentLacks
from retrograde.machine.probe.build import APIS, build_probe
from retrograde.machine.probe.probe import Capacity, Probe
from retrograde.machine.probe.trial import start_with

_SMALL = Capacity(hits=1, writes=1, steps=1, changes=1)


def require_probe(qemu: Path) -> Path:
    """Return the probe's library that `qemu` takes, tried on a machine without devices.

    Raises EnvironmentLacks when this QEMU has no plugin support, has an API that none of the
    probes is for (4 is the oldest: QEMU 10.0) or keeps its instruction count to itself (a
    build without loadable modules), or when there is no compiler to build the probe;
    QemuDied when a signal ends it meanwhile.
    """
    said = ""
    for api in APIS:
        library = build_probe(api)
        loads, said = _try(qemu, library)
        if loads:
            return library
    raise EnvironmentLacks(
        f"{qemu.name} cannot load the probe.",
        "Install QEMU 10.0 or later built with plugins, or go on without it (slower).",
        detail=said,
    )


def _try(qemu: Path, library: Path) -> tuple[bool, str]:
    """Return whether `qemu` loads the probe, and what it says."""
    none = np.array([], np.uint64)
    with Probe(library, none, none, capacity=_SMALL) as probe:
        done = start_with(qemu, probe.argument, probe.fd, "loading the probe")
        loads = done.returncode == 0 and probe.facts().loaded
        return loads, done.stderr
