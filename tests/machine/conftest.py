"""Recordings made by the rig of replaylab, and probes that know them."""

import shutil
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.machine.probe.probe import Capacity, Probe
from retrograde.machine.probe.support import require_probe
from retrograde.recording.rrevents import Kind
from tests.machine.replaylab import QEMU, Replay, positions_of

SMALL = Capacity(hits=1 << 18, writes=1 << 20, steps=1 << 18, changes=1 << 20)


@pytest.fixture(scope="session")
def probe_library():
    """The library of the probe that this QEMU takes."""
    try:
        return require_probe(Path(shutil.which(QEMU)))
    except EnvironmentLacks as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def lab_recording(probe_library, tmp_path_factory):
    """A function from a guest's name to the folder of its recording, made once."""
    made = {}

    def record(guest):
        if guest not in made:
            made[guest] = tmp_path_factory.mktemp(guest)
            Replay.record(guest, made[guest])
        return made[guest]

    return record


@pytest.fixture
def probe_for(lab_recording, probe_library):
    """A function from a guest's name to a probe that knows its recording's exceptions."""
    probes = []

    def make(guest, capacity=SMALL):
        at = [positions_of(lab_recording(guest), kind) for kind in (Kind.EXCEPTION, Kind.INTERRUPT)]
        probes.append(Probe(probe_library, *at, capacity=capacity))
        return probes[-1]

    yield make
    for probe in probes:
        probe.close()
