"""The matrix as one HTML page that needs nothing else: a table, and all the evidence. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from retrograde.verify.matrixmodel import CHECKS, Cell

_MARKS = {"ok": "✓", "quirk": "✓*", "no": "✗", "skipped": "-", None: ""}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em;
  color: #222; background: #fff; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #ccc; padding: .3em .5em; text-align: left; vertical-align: top; }
td.mark { text-align: center; }
.works, .ok { color: #176b2c; } .quirk { color: #7a5a00; } .fails, .no { color: #b00020; }
.absent, .skipped { color: #666; }
pre { background: #f4f4f4; padding: .6em; overflow-x: auto; white-space: pre-wrap; }
summary { cursor: pointer; font-weight: 600; }
details { margin: .6em 0; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818; } pre { background: #262626; }
  .works, .ok { color: #6fce85; } .quirk { color: #e0b84c; } .fails, .no { color: #ff7a85; } }
"""


def page(cells: Sequence[Cell]) -> str:
    """Return the report on `cells`."""
    reversible = sum(cell.reverses for cell in cells)
    versions = sorted({cell.version for cell in cells if cell.version})
    told = f"QEMU {', '.join(versions)}. " if versions else ""
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>retrograde matrix</title><style>{_STYLE}</style></head><body>",
            "<h1>What can be recorded, replayed and reversed</h1>",
            f"<p>{html.escape(told)}{reversible} of {len(cells)} boards go backwards in the "
            "middle of their run.</p>",
            *_table(cells),
            "<p>✓ works, ✓* works because of a quirk's remedy, ✗ fails, - not tried</p>",
            "<dl>",
            *(
                f"<dt><b>{name}</b></dt><dd>{html.escape(what)}</dd>"
                for name, what in CHECKS.items()
            ),
            "</dl><h2>Evidence</h2>",
            *(line for cell in cells for line in _evidence(cell)),
            "</body></html>",
            "",
        )
    )


def _term(name: str, what: str) -> str:
    return f"<dt><b>{name}</b></dt><dd>{html.escape(what)}</dd>"


def _table(cells: Sequence[Cell]) -> Iterator[str]:
    yield "<table><thead><tr><th>target</th><th>board</th><th>guest</th>"
    yield "".join(f"<th>{name}</th>" for name in CHECKS)
    yield "<th>result</th></tr></thead><tbody>"
    for cell in cells:
        yield f"<tr><td>{html.escape(cell.target)}</td><td>{html.escape(cell.board)}</td>"
        yield f"<td>{html.escape(cell.guest)}</td>"
        for name in CHECKS:
            outcome = cell.outcome(name)
            yield f'<td class="mark {outcome or ""}">{_MARKS[outcome]}</td>'
        yield f'<td class="{cell.verdict}">{html.escape(cell.sentence)}</td></tr>'
    yield "</tbody></table>"


def _evidence(cell: Cell) -> Iterator[str]:
    title = html.escape(f"{cell.target} {cell.board}: {cell.sentence}")
    yield f"<details><summary>{title}</summary>"
    if cell.version:
        yield f"<p>QEMU {html.escape(cell.version)}, SHA-256 {html.escape(cell.qemu_sha256)}</p>"
    if cell.checks:
        yield "<table><tbody>"
    for check in cell.checks:
        yield f'<tr><td>{check.name}</td><td class="{check.outcome}">{_MARKS[check.outcome]}</td>'
        yield f"<td>{html.escape(check.text)}"
        if check.evidence:
            yield f"<pre>{html.escape(check.evidence)}</pre>"
        yield f"</td><td>{check.seconds:.1f} s</td></tr>"
    if cell.checks:
        yield "</tbody></table>"
    yield "</details>"
