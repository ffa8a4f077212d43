"""Print the oldest versions that our pyproject.toml files promise to work, as pip's constraints.

`./dev lowest` installs exactly these. Packages that only theirs need are left to pip.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECTS = (ROOT / "pyproject.toml", ROOT / "qemu-test" / "pyproject.toml")

NOT_USED = ("docs", "fuzz", "lint")
"""Extras for developers only, who take what is newest."""


def lowest(project: dict[str, Any]) -> Iterator[str]:
    """Yield `name==version` for each requirement; raises ValueError for one without a bound."""
    extras = project.get("optional-dependencies", {})
    used = (extras[name] for name in extras if name not in NOT_USED)
    for line in (*project["dependencies"], *(line for extra in used for line in extra)):
        requirement = Requirement(line)
        if requirement.name.startswith("retrograde"):
            continue
        bounds = [spec.version for spec in requirement.specifier if spec.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(f"{line} has no lowest version.")
        yield f"{requirement.name}=={bounds[0]}"


def main() -> None:
    """Print all of them, each once."""
    found: set[str] = set()
    for file in PROJECTS:
        found.update(lowest(tomllib.loads(file.read_text())["project"]))
    sys.stdout.write("\n".join(sorted(found)) + "\n")


if __name__ == "__main__":
    main()
