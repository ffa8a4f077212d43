"""The documentation as tests see it: pages, their code blocks and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """All pages people read, in a fixed order."""
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs]


def page(name: str) -> str:
    """Return the text of `docs/NAME`."""
    return (ROOT / "docs" / name).read_text()


def shell_lines(text: str) -> Iterator[str]:
    """Yield the commands in a page's sh blocks, continued lines joined, no comments."""
    for language, block in _BLOCK.findall(text):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                if command := re.sub(r"\s#\s.*", "", line).strip():
                    yield command


def inline_code(text: str) -> Iterator[str]:
    """Yield what a page's prose has in backticks, on one line each."""
    for span in re.findall(r"`([^`]+)`", _BLOCK.sub("", text)):
        yield " ".join(span.split())


def section(text: str, title: str) -> str:
    """Return what stands under the heading `title`, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {title}"
    return found[1]


def column(text: str, number: int = 0) -> list[str]:
    """Return a column of all tables in `text`, heads left out."""
    cells = [line.split("|")[1 + number].strip() for line in text.splitlines() if line[:1] == "|"]
    rules = [at for at, cell in enumerate(cells) if re.fullmatch(r":?-+:?", cell)]
    heads = {at - 1 for at in rules}
    return [cell for at, cell in enumerate(cells) if at not in heads and at not in rules]


def code(cell: str) -> list[str]:
    """Return what is in backticks."""
    return re.findall(r"`([^`]+)`", cell)
