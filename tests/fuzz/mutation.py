"""Inputs that are like others: bytes changed here and there, and JSON changed as JSON."""

from __future__ import annotations

import json
import random
import zlib
from typing import Any

MOST = 4096
"""Bytes of an input, at most."""

EDGES = (
    *(None, True, False, "", 0, 1, -1, 255, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64),
    *(-(1 << 63), 10**30, 0.5, -0.0, 1e308, [], {}, [[]], "x" * 300, "../x", "/etc/passwd"),
    *("a,b=c", "\x1b]0;x\x07", "\u202e", "\ud800", "\u200b" * 40, "init", "none", "٣"),
)
"""Values at which readers stumble."""


def change_bytes(data: bytes, chance: random.Random) -> bytes:
    """Change a few bytes, or take out, double or swap a stretch."""
    changed = bytearray(data or b"\0")
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        stop = min(len(changed), at + (1 << chance.randrange(8)))
        match chance.randrange(6):
            case 0 | 1 if at < len(changed):
                changed[at] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
            case 2 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 3:
                del changed[at:stop]
            case 4:
                changed[at:at] = changed[at:stop]
            case _:
                changed[at:at] = chance.randbytes(chance.randrange(9))
    return bytes(changed[:MOST])


def change_json(data: bytes, chance: random.Random) -> bytes:
    """Change values of a JSON text; bytes where it is none, and now and then anyway."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return change_bytes(data, chance)
    if chance.randrange(8) == 0:
        return change_bytes(data, chance)
    nodes: list[tuple[Any, Any]] = []
    _collect(tree, nodes)
    for _ in range(chance.randint(1, 3)):
        if nodes:
            _change_node(*chance.choice(nodes), nodes, chance)
    return json.dumps(tree, separators=(",", ":"), allow_nan=True).encode()


def _collect(tree: Any, nodes: list[tuple[Any, Any]]) -> None:
    """List all places in `tree`, as container and key."""
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            nodes.append((tree, key))
            _collect(tree[key], nodes)


def _change_node(
    parent: Any, key: Any, nodes: list[tuple[Any, Any]], chance: random.Random
) -> None:
    if isinstance(parent, dict):
        if key not in parent:
            return
    elif key >= len(parent):
        return
    match chance.randrange(6):
        case 0:
            parent[key] = chance.choice(EDGES)
        case 1:
            other, where = chance.choice(nodes)
            held = other.get(where) if isinstance(other, dict) else None
            # A copy, so that nothing ends up inside itself.
            parent[key] = json.loads(json.dumps(held))
        case 2:
            del parent[key]
        case 3 if isinstance(parent, list):
            parent.insert(key, json.loads(json.dumps(parent[key])))
        case 3:
            parent[chance.choice(("", key + "x", "input", "name", "kind", "__proto__"))] = parent[
                key
            ]
        case 4 if isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] += chance.choice((-1, 1, -parent[key], 1 << 40))
        case _ if isinstance(parent[key], str):
            text = change_bytes(parent[key].encode("utf-8", "surrogatepass"), chance)
            parent[key] = text.decode("utf-8", "replace")


def sealed(content: bytes) -> bytes:
    """Return JSON as a document with its checksum: who means ill can make one."""
    return b'{"crc32": "%08x", "content": %s}' % (zlib.crc32(content), content)
