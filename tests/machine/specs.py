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
FRIENDLY = ("on", "off", "1", "128", "q35", "none", "virtio-blk-pci", "loader", "d0", "net0")
KEYS = (
    *("type", "driver", "qom-type", "id", "drive", "netdev", "chardev", "file", "romfile"),
    *("path", "host", "property", "value", "size", "cpus", "name", "string", "guest", "addr"),
    *("memdev", "mem-path", "fd", "script", "dumpdtb", "firmware", "kernel", "hpet", "serial"),
)

texts = st.sampled_from(HOSTILE + FRIENDLY) | st.text(max_size=8)
inputs = st.integers(-1, 4)
names = st.sampled_from(sorted({*FLAGS, *FILES, *TEXTS, *RULES, "chardev", "drive", "plugin"}))
leads = st.sampled_from(sorted({rule.lead for rule in RULES.values() if rule.lead}))
properties = st.tuples(
    st.sampled_from(KEYS) | leads | texts, texts | st.builds(lambda n: {"input": n}, inputs)
).map(list)


def _kind(kind, **fields):
    return st.fixed_dictionaries({"kind": st.just(kind), **fields})


layers = st.fixed_dictionaries(
    {"input": inputs, "format": st.sampled_from(["raw", "qcow2", "nbd"])}
)
KINDS = {
    "flag": _kind("flag", name=names),
    "text": _kind("text", name=names, value=texts),
    "file": _kind("file", name=names, input=inputs),
    "properties": _kind("properties", name=names, items=st.lists(properties, max_size=4)),
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

options = st.one_of(*KINDS.values())


def machines(max_options=1):
    """Return a strategy for whole machines of 1 to `max_options` options, as JSON objects."""
    return st.fixed_dictionaries(
        {
            "target": st.just("x86_64"),
            "options": st.lists(options, min_size=1, max_size=max_options),
        }
    )
