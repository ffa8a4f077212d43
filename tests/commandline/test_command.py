import dataclasses
import json

import msgspec
import pytest
from hypothesis import HealthCheck, assume, find, given, settings
from hypothesis import strategies as st

from retrograde.commandline.arguments import parse_arguments
from retrograde.commandline.command import (
    Chardev,
    Launch,
    RamFile,
    record_command,
    replay_command,
)
from retrograde.errors import InternalError
from retrograde.recording.allowlist import FLAGS, RULES
from retrograde.recording.keyval import split
from retrograde.recording.machinespec import MachineSpec, Properties, Property, Text
from tests.machine.images import qcow2_image, raw_image
from tests.machine.specs import KINDS, machines

# A path that needs every kind of quoting there is.
FOLDER = '/run/a,b="c"'
VMSTATE, LAYER, OVERLAY = qcow2_image(), raw_image(), qcow2_image()


def launch_for(spec, **changes):
    """A launch in which every path but those of the images begins with FOLDER."""
    numbers = range(max(spec.inputs(), default=-1) + 1)
    plain = {
        "program": "qemu-system-x86_64",
        "inputs": [f"{FOLDER}/input{n}" for n in numbers],
        "layers": dict.fromkeys(numbers, LAYER),
        "overlays": [OVERLAY for _ in spec.overlaid()],
        "vmstate": VMSTATE,
        "log": f"{FOLDER}/replay.log",
        "console": Chardev.file(f"{FOLDER}/console.log"),
        "ram": RamFile(f"{FOLDER}/ram", 1 << 27),
        "monitor_fd": 5,
    }
    return Launch(**(plain | changes))


def decode(machine):
    return msgspec.json.decode(msgspec.json.encode(machine), type=MachineSpec)


# What we add ourselves to any machine, and what takes no value.
OURS = {"-no-user-config", "-S", "-no-shutdown"}
VALUELESS = OURS | {f"-{flag}" for flag in FLAGS}
FREE_TEXTS = {"-append", "-prom-env"}


def words_with_values(argv):
    """Yield each option with its value, "" for none; fails when they do not alternate."""
    words = iter(argv[1:])
    for word in words:
        assert word.startswith("-")
        yield word, "" if word in VALUELESS else next(words)


def without_free_text(option, value):
    """Return what of an option's value QEMU could take for a name of something."""
    if option in FREE_TEXTS:
        return ""
    rule = RULES.get(option.removeprefix("-"))
    if rule is None:
        return value
    free = rule.free | ({"name"} if option == "-fw_cfg" else set())
    return " ".join(text for key, text in split(value) if key not in free)


@settings(suppress_health_check=[HealthCheck.filter_too_much], max_examples=300, deadline=None)
@given(machines(), st.booleans())
def test_no_accepted_machine_names_anything_but_what_the_launch_gives(machine, replays):
    """The allow-list's promise, for whatever a stranger may write into a manifest."""
    try:
        spec = decode(machine)
    except msgspec.ValidationError:
        assume(False)
    launch = launch_for(spec, sandbox=False)
    argv = replay_command(spec, launch) if replays else record_command(spec, launch)
    for option, value in words_with_values(argv):
        for spelling in (FOLDER, FOLDER.replace(",", ",,")):
            for quoted in (spelling, json.dumps(spelling)[1:-1]):
                value = value.replace(quoted, "")
        named = without_free_text(option, value)
        for image in (VMSTATE, LAYER, OVERLAY):
            named = named.replace(f'"{image.path}"', "")
        for ours in ("/input", "/replay.log", "/console.log", "/ram"):
            named = named.replace(ours, "")
        assert "/" not in named, (option, value)
        assert "chardev=" not in named
        if option == "-device":
            assert {key for key, _ in split(value)}.isdisjoint({"chardev", "fd", "script"})
        for opening in ("exec:", "unix:", "tcp:", "fd=", "script=", "hostfwd=", "accel="):
            assert opening not in named or option == "-chardev", (option, value)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"nic"}))
def test_the_strategy_finds_options_of_each_kind_that_are_accepted(kind):
    """Guards the test above, which would prove nothing if the schema refused everything."""

    def accepted(option):
        try:
            decode({"target": "x86_64", "options": [option]})
        except msgspec.ValidationError:
            return False
        return True

    find(
        KINDS[kind], accepted, settings=settings(max_examples=20_000, database=None, deadline=None)
    )


def record(line, target="x86_64", **changes):
    machine = parse_arguments(line, target)
    launch = launch_for(machine.spec, live_netdevs=machine.live_netdevs, **changes)
    return record_command(machine.spec, launch)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    return str(path)


def test_record_command_of_a_linux_boot(disk):
    line = ["-kernel", disk, "-append", "a b", "-m", "128", "-no-reboot"]
    quoted = FOLDER.replace(",", ",,")
    argv = record(line, machine_options=["hpet=off"], globals=["apic-common.vapic=off"])
    assert argv[:3] == ["qemu-system-x86_64", "-no-user-config", "-drive"]
    assert argv[3].startswith("if=none,id=retrograde-vmstate,file=json:{")
    assert argv[4:] == [
        *("-kernel", f"{FOLDER}/input0", "-append", "a b", "-m", "size=128", "-no-reboot"),
        *("-net", "none"),
        *("-chardev", f"backend=file,id=retrograde-console,path={quoted}/console.log"),
        *("-serial", "chardev:retrograde-console"),
        *("-display", "none", "-accel", "tcg"),
        *("-chardev", "backend=socket,id=retrograde-monitor,fd=5"),
        *("-qmp", "chardev:retrograde-monitor"),
        "-object",
        f"memory-backend-file,id=retrograde-ram,share=on,mem-path={quoted}/ram,size=134217728B",
        *("-machine", "memory-backend=retrograde-ram"),
        *("-machine", "hpet=off", "-global", "apic-common.vapic=off"),
        *("-icount", f"shift=4,rr=record,rrfile={quoted}/replay.log"),
        *("-sandbox", argv[-1]),
    ]
    assert "spawn=deny" in argv[-1]


def test_replay_differs_from_record_in_a_few_words_only(disk):
    spec = parse_arguments(["-hda", disk, "-nic", "user,model=virtio"], "x86_64").spec
    launch = launch_for(spec, snapshot="init")
    recording, replaying = record_command(spec, launch), replay_command(spec, launch)
    assert replaying[-2:] == ["-S", "-no-shutdown"]
    pairs = zip(recording, replaying[:-2], strict=True)
    assert {(a, b) for a, b in pairs if a != b} == {
        tuple(
            f"shift=4,rr={mode},rrfile={FOLDER.replace(',', ',,')}/replay.log,rrsnapshot=init"
            for mode in ("record", "replay")
        )
    }


def test_a_replay_keeps_nothing_of_the_live_network():
    line = ["-netdev", "user,id=n,hostfwd=tcp::1-:2", "-netdev", "socket,id=s,listen=:3"]
    machine = parse_arguments(line, "x86_64")
    launch = launch_for(machine.spec, live_netdevs=machine.live_netdevs)
    live, quiet = record_command(machine.spec, launch), replay_command(machine.spec, launch)
    assert "type=user,id=n,hostfwd=tcp::1-:2" in live
    assert "type=socket,id=s,listen=:3" in live
    assert {"user,id=n,restrict=on", "hubport,id=s,hubid=1001"} < set(quiet)
    assert "filter-replay,id=retrograde-replay-n,netdev=n" in quiet
    assert "hostfwd" not in " ".join(quiet) + msgspec.json.encode(machine.spec).decode()


def test_a_disk_is_an_overlay_over_the_image_under_blkreplay(disk):
    argv = record(["-drive", f"file={disk},format=raw,if=virtio"])
    base, overlay = (json.loads(value) for o, value in words_with_values(argv) if o == "-blockdev")
    assert base == {
        "node-name": "retrograde-0-0",
        "driver": "raw",
        "read-only": True,
        "file": {"driver": "file", "filename": LAYER.path},
    }
    assert overlay == {
        "node-name": "retrograde-0-1",
        "driver": "qcow2",
        "read-only": False,
        "file": {"driver": "file", "filename": OVERLAY.path},
        "backing": "retrograde-0-0",
    }
    assert "if=virtio,driver=blkreplay,image=retrograde-0-1" in argv


def test_optional_parts_are_left_out():
    argv = record(["-nodefaults"], ram=None, snapshot=None, sandbox=False)
    assert not {"-sandbox", "-object", "-machine", "-plugin", "-gdb"} & set(argv)
    assert not any("rrsnapshot" in word for word in argv)
    assert argv[argv.index("-serial") + 1] == "none"


def test_processors_beside_the_first_are_devices():
    smp = (("cpus", "3"), ("maxcpus", "4"), ("sockets", "2"), ("cores", "1"), ("threads", "2"))
    options = (
        Text("cpu", "Nehalem,+x2apic"),
        Properties("smp", tuple(Property(key, value) for key, value in smp)),
    )
    spec = MachineSpec("x86_64", options)
    argv = record_command(spec, launch_for(spec, scheduler="s.so,record=9"))
    at = argv.index("-smp")
    assert argv[at : at + 6] == [
        *("-smp", "cpus=1,maxcpus=4,sockets=2,cores=1,threads=2"),
        *("-device", "driver=Nehalem-x86_64-cpu,socket-id=0,core-id=0,thread-id=1"),
        *("-device", "driver=Nehalem-x86_64-cpu,socket-id=1,core-id=0,thread-id=0"),
    ]
    assert argv[-2:] == ["-plugin", "s.so,record=9"]


def test_gdb_and_plugin_on_request():
    spec = MachineSpec("x86_64", ())
    launch = launch_for(spec, gdb=Chardev.socket(7, listening=True), plugin="/x.so,a=b")
    assert "-gdb" not in replay_command(spec, launch)
    argv = replay_command(spec, dataclasses.replace(launch, serves_gdb=True))
    assert "backend=socket,id=retrograde-gdb,fd=7,server=on,wait=off" in argv
    assert argv[argv.index("-gdb") + 1] == "chardev:retrograde-gdb"
    assert argv[argv.index("-plugin") + 1] == "/x.so,a=b"


def test_sound_goes_nowhere():
    argv = record(["-device", "AC97", "-device", "intel-hda", "-device", "hda-output"])
    assert "driver=AC97,audiodev=retrograde-silence" in argv
    assert "driver=none,id=retrograde-silence" in argv


def test_each_overlay_must_be_given(disk):
    with pytest.raises(InternalError, match="1 overlays"):
        record(["-hda", disk], overlays=[])
