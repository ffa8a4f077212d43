"""The network of a user's command line: -netdev, -nic and -net.

While recording, the guest talks to what the user asked for; a replay takes all packets
from the log. The manifest therefore keeps that there is a backend and nothing of what
it is connected to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from retrograde.commandline.refusals import REFUSED_DEVICES, REFUSED_NETDEVS, Refusal, refuse
from retrograde.isa.isa import X86
from retrograde.recording.keyval import Pairs, join, split
from retrograde.recording.machinespec import Netdev, Nic, Option, Text

_ISOLATED = frozenset({"socket", "stream", "dgram"})
_NIC_KEYS = {"model": "model", "mac": "mac", "macaddr": "mac", "addr": "address"}
_NIC_IGNORED = frozenset({"name", "vectors", "netdev", "id"})

_PROCESSES = Refusal(
    "it starts a process or keeps a connection inside the machine's state",
    "Use hostfwd= for connections to the guest.",
)
_HUBS = Refusal(
    "cards and backends cannot be paired", "Use one -nic BACKEND,model=CARD for each card."
)


class UserNetwork:
    """Collects network options; `options` gives the machine's part of them."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.live: dict[str, str] = {}
        self._asked = False
        self._netdevs: list[Netdev] = []
        self._cards: list[Nic] = []
        self._legacy_cards: list[Pairs] = []
        self._legacy_backends: list[Pairs] = []

    def netdev(self, value: str) -> None:
        """Take in `-netdev BACKEND,id=…`."""
        if value.startswith("{"):
            refuse(f"-netdev {value}", Refusal("it is JSON", "Write it as key=value."))
        self._asked = True
        pairs = split(value, "type")
        given = dict(pairs)
        self._backend(given.get("type", ""), given.get("id", ""), pairs, "-netdev")

    def nic(self, value: str) -> None:
        """Take in `-nic BACKEND,model=…,mac=…`, a card and its backend in one."""
        self._asked = True
        pairs = split(value, "type")
        given = dict(pairs)
        if given.get("type") == "none":
            return
        name = given.get("id") or self._fresh_id()
        rest = tuple((k, v) for k, v in pairs if k not in _NIC_KEYS and k not in _NIC_IGNORED)
        self._backend(given.get("type", ""), name, rest, "-nic")
        self._card(pairs, name)

    def net(self, value: str) -> None:
        """Take in the older `-net nic` and `-net BACKEND`."""
        self._asked = True
        pairs = split(value, "type")
        given = dict(pairs)
        if given.get("type") == "none":
            return
        if given.get("type") != "nic":
            self._legacy_backends.append(pairs)
        elif "netdev" in given:
            self._card(pairs, given["netdev"])
        else:
            self._legacy_cards.append(pairs)

    def options(self) -> Iterator[Option]:
        """Yield the backends and cards; `-net none` when no network was asked for."""
        if len(self._legacy_cards) > 1 or len(self._legacy_backends) > 1:
            refuse("More than one -net card or backend", _HUBS)
        if self._legacy_cards and not self._legacy_backends:
            refuse("-net nic without a backend", _HUBS)
        for card, backend in zip(self._legacy_cards, self._legacy_backends, strict=False):
            name = self._fresh_id()
            rest = tuple((k, v) for k, v in backend if k not in _NIC_IGNORED)
            self._backend(dict(backend).get("type", ""), name, rest, "-net")
            self._card(card, name)
        if not self._netdevs:
            yield Text("net", "none")
        yield from self._netdevs
        yield from self._cards

    def _backend(self, kind: str, name: str, pairs: Pairs, option: str) -> None:
        if not name:
            refuse(option, Refusal("it has no id", "Add id=net0."))
        backend: Literal["user", "isolated"]
        if kind == "user":
            backend = "user"
        elif kind in _ISOLATED:
            backend = "isolated"
        else:
            refuse(f"{option} {kind}", REFUSED_NETDEVS.get(kind, REFUSED_NETDEVS[""]))
        for key, _ in pairs:
            if key in ("guestfwd", "smb"):
                refuse(f"{option} {key}=", _PROCESSES)
        self._netdevs.append(Netdev(name, backend))
        rest = ((k, _absolute(k, v)) for k, v in pairs if k not in ("type", "id"))
        self.live[name] = join((("type", kind), ("id", name), *rest))

    def _card(self, pairs: Pairs, netdev: str) -> None:
        chosen = {_NIC_KEYS[key]: value for key, value in pairs if key in _NIC_KEYS}
        # The PC boards' own choice is an e1000 or e1000e (hw/i386/pc_piix.c, pc_q35.c).
        model = chosen.get("model") or ("e1000" if self._target in X86 else "")
        for pattern, refusal in REFUSED_DEVICES:
            if pattern.fullmatch(model):
                refuse(f"A network card {model}", refusal)
        self._cards.append(Nic(netdev, **chosen))

    def _fresh_id(self) -> str:
        return f"card{len(self._netdevs)}"


def _absolute(key: str, value: str) -> str:
    """Make a directory's name independent of the directory QEMU runs in."""
    return str(Path(value).absolute()) if key == "tftp" else value
