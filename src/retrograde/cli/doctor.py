"""`retrograde doctor`: what is here, what works, what each quirk probe found."""

from __future__ import annotations

import platform
import shutil

import click
import msgspec

from retrograde.cli.output import JSON_OPTION, print_json, print_table
from retrograde.errors import EnvironmentLacks, QemuError
from retrograde.machine.qemu import Qemu, install_hint, installed_targets
from retrograde.machine.quirks import QUIRKS, quirks_for
from retrograde.recording.rrlayout import LAYOUTS

RECOMMENDED = (10, 0)


class Finding(msgspec.Struct, frozen=True):
    """One line of the report. `verdict` is ok, note or missing."""

    part: str
    verdict: str
    detail: str


@click.command("doctor")
@JSON_OPTION
def command(as_json: bool) -> None:
    """Check this machine; exit code 3 when something needed is missing."""
    findings = [*_programs(), *_qemus(), *_quirks()]
    if as_json:
        print_json(findings)
    else:
        rows = [(f.part, f.verdict, f.detail) for f in findings]
        print_table(("part", "verdict", "detail"), rows)
    if any(finding.verdict == "missing" for finding in findings):
        raise SystemExit(EnvironmentLacks.exit_code)


def _programs() -> list[Finding]:
    findings = [Finding("Python", "ok", platform.python_version())]
    needs = {
        "qemu-img": ("qemu-utils", "missing"),
        "setpriv": ("util-linux", "note"),
        "gdb": ("gdb", "note"),
        "cc": ("gcc libc6-dev", "note"),
    }
    for program, (package, verdict) in needs.items():
        path = shutil.which(program)
        hint = f"not installed: apt-get install {package}"
        findings.append(Finding(program, "ok" if path else verdict, path or hint))
    return findings


def _qemus() -> list[Finding]:
    targets = installed_targets()
    if not targets:
        return [Finding("QEMU", "missing", install_hint("x86_64"))]
    findings = []
    for target in targets:
        try:
            qemu = Qemu.find(target)
            log_version = qemu.log_version
        except (EnvironmentLacks, QemuError) as error:
            findings.append(Finding(f"QEMU {target}", "note", f"{error.what} {error.remedy}"))
            continue
        can = [
            "TCG",
            "sandbox" if qemu.has_sandbox else "no sandbox",
            "plugins" if qemu.has_plugins else "no plugins",
        ]
        advice = ""
        if log_version not in LAYOUTS:
            advice = f"; its logs, of version {log_version:#010x}, cannot be read: no recording"
        elif qemu.version[:2] < RECOMMENDED:
            advice = "; 10.0 is recommended"
        detail = f"{qemu.full_version}: {', '.join(can)}{advice}"
        findings.append(Finding(f"QEMU {target}", "note" if advice else "ok", detail))
    return findings


def _quirks() -> list[Finding]:
    """For each quirk and installed target it concerns: on which boards it is remedied."""
    findings = []
    for target in installed_targets():
        try:
            qemu = Qemu.find(target)
        except (EnvironmentLacks, QemuError):  # said in its own line
            continue
        concerned = [quirk for quirk in QUIRKS if quirk.concerns(target)]
        for quirk in concerned:
            boards = [
                name
                for name in ("pc", "q35", "microvm", "s390-ccw-virtio")
                if qemu.machine_type(name) and quirk in quirks_for(qemu, name)
            ]
            where = f"with {' or '.join(quirk.devices)}" if quirk.devices else ", ".join(boards)
            detail = f"{quirk.symptom}. Remedy ({where}): {quirk.remedy}"
            findings.append(Finding(f"{target} {quirk.name}", "note", detail))
    return findings
