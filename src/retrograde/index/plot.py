"""A picture of a recording: calls, interrupts and console output over position, as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrograde.index.tables.logtables import build_log_tables
from retrograde.index.tables.store import IndexStore
from retrograde.recording.bundle import Recording
from retrograde.recording.claim import made_whole, writing

BINS: Final = 400
"""Stretches that a recording is cut into: each gets one value."""

_WIDTH, _HEIGHT = 960, 110  # of the area of one row
_LEFT, _TOP, _GAP, _BOTTOM = 110, 78, 34, 44
_TICKS: Final = 5
_STEPS: Final = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class _Row:
    """What one row shows: its name, colour, values and the text where there are none."""

    name: str
    colour: str
    values: NDArray[np.int64]
    absent: str = ""


def plot(recording: Recording, path: Path) -> None:
    """Draw `recording` to `path`. Calls need `retrograde index`; their row says so.

    Raises UsageError when `path` cannot be written, RecordingError where calls were lost.
    """
    store, end = IndexStore(recording), max(1, recording.end)
    build_log_tables(store, recording)
    store.require_whole("calls")
    told = "" if store.done("calls") else "not indexed: retrograde index"
    rows = (
        _Row("calls", "#2563a8", _counts(store, "calls", "1", end), told),
        _Row("interrupts", "#b4541a", _counts(store, "interrupts", "1", end)),
        _Row("console, bytes", "#2f7d4f", _counts(store, "console", "strlen(text) + 1", end)),
    )
    picture = _draw(recording.name, rows, end)
    with made_whole(path) as partial, writing(path):
        partial.write_text(picture, encoding="utf-8")


def _counts(store: IndexStore, table: str, weight: str, end: int) -> NDArray[np.int64]:
    """Return the sum of `weight` over the rows of `table` in each stretch."""
    counts = np.zeros(BINS, np.int64)
    with store.connect((table,)) as rows:
        found = rows.execute(
            f"SELECT least(position * {BINS} // {end}, {BINS - 1}) AS bin, sum({weight})::BIGINT "
            f"FROM {table} GROUP BY bin"
        ).fetchall()
    for number, count in found:
        counts[number] = count
    return counts


def _draw(name: str, rows: tuple[_Row, ...], end: int) -> str:
    width = _LEFT + _WIDTH + 24
    height = _TOP + len(rows) * (_HEIGHT + _GAP) - _GAP + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="bold">{escape(name)}</text>',
        f'<text x="{_LEFT}" y="42" fill="#666">each in {BINS} stretches of '
        f"{_short(end / BINS)} instructions</text>",
    ]
    for number, row in enumerate(rows):
        parts += _area(row, _TOP + number * (_HEIGHT + _GAP))
    parts += _axis(end, height - _BOTTOM)
    return "\n".join([*parts, "</svg>\n"])


def _area(row: _Row, top: int) -> list[str]:
    """Return the drawing of a row whose upper edge is at `top`."""
    base, peak = top + _HEIGHT, int(row.values.max())
    edges = np.linspace(_LEFT, _LEFT + _WIDTH, BINS + 1)
    heights = base - row.values * (_HEIGHT / max(1, peak))
    steps = " ".join(
        f"L{left:.1f} {y:.1f}L{right:.1f} {y:.1f}"
        for left, right, y in zip(edges, edges[1:], heights, strict=False)
    )
    return [
        f'<text x="{_LEFT - 10}" y="{top + 12}" text-anchor="end">{_short(peak) if peak else ""}'
        "</text>",
        f'<text x="{_LEFT - 10}" y="{base}" text-anchor="end">0</text>',
        f'<text x="{_LEFT}" y="{top - 6}" fill="{row.colour}" font-weight="bold">{row.name}</text>',
        f'<path d="M{_LEFT} {base} {steps} L{_LEFT + _WIDTH} {base}Z" fill="{row.colour}"/>',
        f'<path d="M{_LEFT} {base}H{_LEFT + _WIDTH}" stroke="#999"/>',
        *(
            [f'<text x="{_LEFT + 12}" y="{top + _HEIGHT // 2}" fill="#666">{row.absent}</text>']
            if row.absent
            else []
        ),
    ]


def _axis(end: int, y: int) -> list[str]:
    parts = []
    step = _round_step(end / _TICKS)
    for number in range(int(end / step) + 1):
        x = _LEFT + _WIDTH * number * step / end
        parts.append(f'<path d="M{x:.1f} {y}v5" stroke="#999"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{y + 20}" text-anchor="middle">{_short(number * step)}</text>'
        )
    middle = _LEFT + _WIDTH / 2
    parts.append(f'<text x="{middle}" y="{y + 36}" text-anchor="middle">position</text>')
    return parts


def _round_step(least: float) -> float:
    """Return the next number above `least` that people count in."""
    power = 10 ** np.floor(np.log10(max(1.0, least)))
    return float(next(step * power for step in _STEPS if step * power >= least))


def _short(value: float) -> str:
    """Return a number as positions are written short: 1.5G, 300M, 12k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
