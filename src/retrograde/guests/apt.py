"""Fetches Debian packages without installing them: apt resolves, dpkg-deb unpacks.

Works as any user; only refreshing apt's package lists takes root, and is done only
when the lists do not lead to the package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from retrograde.errors import EnvironmentLacks

_TIMEOUT = 600.0
_NETWORK = ("-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20")
# As root, apt would drop to the user _apt, who may not write where we download to.
_AS_OURSELVES = ("-o", "APT::Sandbox::User=root")


def fetch(package: str, depends: str | None, into: Path) -> str:
    """Unpack the files of `package` below `into` and return "name version" of what it was.

    With `depends` given, `package` is a meta package, and what is unpacked is the one
    package it depends on whose name matches that regular expression. Raises EnvironmentLacks
    where apt is missing, does not know the package or cannot download it.
    """
    _require_tools()
    name, version = _resolve(package, depends)
    try:
        archive = _download(name, version, into)
    except EnvironmentLacks:
        # Old lists name versions that the mirror has since replaced.
        if not _refresh_lists():
            raise
        name, version = _resolve(package, depends)
        archive = _download(name, version, into)
    _run(["dpkg-deb", "-x", str(archive), str(into)])
    archive.unlink()
    return f"{name} {version}"


def preferred(versions: Sequence[str]) -> str:
    """Choose among versions listed newest first: the newest that is not a backport.

    A host with backports enabled must get the same guest as one without, whatever its
    apt preferences are: older QEMUs are only known to run the release's own kernel.
    """
    return next((version for version in versions if "~bpo" not in version), versions[0])


def _require_tools() -> None:
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise EnvironmentLacks(
                f"This host has no {tool}, so Debian packages cannot be fetched",
                "Use a built-in guest, or run this on Debian",
            )


def _resolve(package: str, depends: str | None) -> tuple[str, str]:
    versions = _versions(package)
    if not versions and _refresh_lists():
        versions = _versions(package)
    if not versions:
        raise EnvironmentLacks(
            f"apt's package lists do not name {package}",
            "Run: sudo apt-get update (on Debian; elsewhere use a built-in guest)",
        )
    version = preferred(versions)
    return (package, version) if depends is None else _dependency(package, version, depends)


def _versions(package: str) -> list[str]:
    """Return the versions on offer, newest first."""
    rows = [line.split("|") for line in _run(["apt-cache", "madison", package]).splitlines()]
    return [row[1].strip() for row in rows if len(row) == 3 and not row[2].endswith("Sources")]


def _dependency(package: str, version: str, pattern: str) -> tuple[str, str]:
    described = _run(["apt-cache", "show", f"{package}={version}"])
    # "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)"
    found = re.search(rf"^Depends:.*?({pattern}) \(= ([^)]+)\)", described, re.MULTILINE)
    if found is None:
        raise EnvironmentLacks(
            f"{package} {version} depends on no package like {pattern}",
            "Use a built-in guest and report this",
            described,
        )
    architecture = package.partition(":")[2]
    return f"{found[1]}:{architecture}" if architecture else found[1], found[2]


def _download(name: str, version: str, into: Path) -> Path:
    before = set(into.glob("*.deb"))
    _run(["apt-get", *_AS_OURSELVES, *_NETWORK, "-q", "download", f"{name}={version}"], into)
    (archive,) = set(into.glob("*.deb")) - before
    return archive


def _refresh_lists() -> bool:
    """Run apt-get update where we may; say whether it was done."""
    if os.geteuid() != 0:
        return False
    _run(["apt-get", *_NETWORK, "-q", "update"])
    return True


def _run(command: list[str], directory: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentLacks(
            f"{command[0]} did not finish in {_TIMEOUT:.0f} seconds",
            "Check the network, or use a built-in guest",
        ) from None
    except subprocess.CalledProcessError as error:
        raise EnvironmentLacks(
            f"{' '.join(command)} failed with status {error.returncode}",
            "Run: sudo apt-get update, check the network, or use a built-in guest",
            error.stderr,
        ) from None
    return done.stdout
