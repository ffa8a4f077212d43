"""`retrograde doctor` here, and where there is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrograde.machine.qemu import Qemu
from tests.command import retrograde
from tests.system.test_qemu_at_hand import pretend


@pytest.mark.qemu
def test_here(qemu: Qemu) -> None:
    findings = {finding["part"]: finding for finding in retrograde("doctor", "--json").json()}
    assert findings["QEMU x86_64"]["detail"].startswith(f"{qemu.full_version}: TCG")
    assert findings["qemu-img"]["verdict"] == "ok"
    assert "vapic=off" in findings["x86_64 x86-vapic"]["detail"]
    assert "(pc, q35)" in findings["x86_64 x86-hpet"]["detail"]
    assert b"x86-vapic" in retrograde("doctor").stdout


def test_where_there_is_nothing() -> None:
    done = retrograde("doctor", "--json", environment={"PATH": "/nowhere"})
    assert done.status == 3
    assert b"apt-get install" in done.stdout
    assert b"Traceback" not in done.stdout


def test_qemu_that_cannot_record(tmp_path: Path) -> None:
    path = pretend(tmp_path, "10.0.2", "kvm\\n").split(":")[0]
    done = retrograde("doctor", "--json", environment={"PATH": f"{path}:/usr/bin:/bin"})
    assert b"built without TCG" in done.stdout
