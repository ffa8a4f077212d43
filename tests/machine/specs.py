"""Machine descriptions as JSON, friendly and hostile, for property tests."""

from hypothesis import strategies as st

from retrograde.recording.allowlist import FILES, FLAGS, RULES, TEXTS

HOSTILE = (
    "/etc/passwd",
    "../../secret",
    "unix:/tmp/sock",
    "exec:id",
    "/dev/sda",
    "json:{}",
    "retrograde-monitor",
    "x,file=/etc/passwd",
    "host",
    "kvm",
    "chardev:retrograde-monitor",
)
FRIENDLY = ("on", "off", "1", "128", "none", "d0", "net0")
KEYS = (
    *("type", "driver", "id", "drive", "netdev", "chardev", "file", "romfile", "path", "host"),
    *("string", "guest", "addr", "memdev", "mem-path", "fd", "script", "dumpdtb", "firmware"),
    *("kernel", "hpet", "serial", "accel", "cpus", "value"),
)
# Beginnings that the schema accepts, so that what follows them decides.
BEGINNINGS = {
    "machine": [["type", "q35"]],
    "object": [["qom-type", "rng-builtin"], ["qom-type", "memory-backend-ram"]],
    "device": [["driver", "VGA"], ["driver", "virtio-blk-pci"], ["driver", "loader"]],
    "m": [["size", "128"]],
    "smp": [["cpus", "1"]],
    "smbios": [["type", "1"]],
    "fw_cfg": [["name", "opt/x"]],
    "numa": [["type", "node"]],
    "audiodev": [["driver", "none"]],
}

hostile = st.sampled_from(HOSTILE)
texts = hostile | st.sampled_from(FRIENDLY) | st.text(max_size=8)
inputs = st.integers(-1, 4)
names = st.sampled_from(sorted({*FLAGS, *FILES, *TEXTS, *RULES, "chardev", "drive", "plugin"}))
values = texts | st.builds(lambda n: {"input": n}, inputs)
pairs = st.tuples(st.sampled_from(KEYS) | texts, values).map(list)


def _properties(name, first, rest):
    return {"kind": "properties", "name": name, "items": [*first, *rest]}


# An accepted beginning and one thing after it that may not be; -global; anything.
properties = st.one_of(
    st.sampled_from(sorted(BEGINNINGS)).flatmap(
        lambda name: st.builds(
            _properties,
            st.just(name),
            st.sampled_from(BEGINNINGS[name]).map(lambda pair: [pair]),
            st.lists(pairs, min_size=1, max_size=2),
        )
    ),
    st.builds(
        lambda key, value: _properties(
            "global", [["driver", "VGA"]], [["property", key], ["value", value]]
        ),
        st.sampled_from(KEYS),
        texts,
    ),
    st.builds(_properties, names, st.just([]), st.lists(pairs, max_size=3)),
)


def _kind(kind, **fields):
    return st.fixed_dictionaries({"kind": st.just(kind), **fields})


layers = st.fixed_dictionaries(
    {"input": inputs, "format": st.sampled_from(["raw", "qcow2", "nbd"])}
)
KINDS = {
    "flag": _kind("flag", name=names),
    "text": _kind("text", name=names, value=texts),
    "file": _kind("file", name=names, input=inputs),
    "properties": properties,
    "disk": _kind(
        "disk",
        id=texts,
        interface=st.sampled_from(["default", "none", "floppy", "virtio", "xen"]),
        media=st.sampled_from(["disk", "cdrom"]),
        writable=st.booleans(),
        layers=st.lists(layers, max_size=2),
    ),
    "netdev": _kind("netdev", id=texts, backend=st.sampled_from(["user", "isolated", "tap"])),
    "nic": _kind("nic", netdev=texts, model=texts, mac=texts),
    "serial": _kind("serial", role=st.sampled_from(["console", "null", "file:/tmp/x"])),
}
"""A strategy for the JSON of each kind of option."""

# Half of them properties: that is where nearly all of QEMU's options are.
options = properties | st.one_of(*KINDS.values())


def machines():
    """Return a strategy for machines of one option, as JSON objects."""
    return st.builds(lambda option: {"target": "x86_64", "options": [option]}, options)
