import subprocess

import numpy as np
import pytest

from retrograde.errors import EnvironmentLacks, UsageError
from retrograde.machine.probe import page as layout
from retrograde.machine.probe.build import APIS, build_probe, compiler, source_folder
from retrograde.machine.probe.probe import Probe
from retrograde.machine.probe.request import Breakpoint, Condition, Watch

NONE = np.array([], np.uint64)
FIELDS = {
    "page": layout.HEADER,
    "area": layout.AREA,
    "breakpoint": layout.BREAKPOINT,
    "watch": layout.WATCH,
    "condition": layout.CONDITION,
    "record": layout.RECORD,
    "step": layout.STEP,
    "change": layout.CHANGE,
}


@pytest.fixture
def probe(tmp_path):
    with Probe(tmp_path / "probe.so", np.array([3, 1, 2], np.uint64), NONE) as probe:
        yield probe


def test_the_page_is_laid_out_as_in_c(tmp_path):
    lines = [
        f'printf("{kind}.{field} %zu\\n", offsetof(struct {kind}, {field}));'
        for kind, dtype in FIELDS.items()
        for field in dtype.names
    ]
    lines += [f'printf("{kind} %zu\\n", sizeof(struct {kind}));' for kind in FIELDS]
    lines += ['printf("magic %zu\\n", (size_t)PAGE_MAGIC);']
    lines += ['printf("version %zu\\n", (size_t)PAGE_VERSION);']
    source = tmp_path / "layout.c"
    source.write_text(
        '#include <stddef.h>\n#include <stdio.h>\n#include "probe_page.h"\n'
        f"int main(void) {{ {' '.join(lines)} return 0; }}\n"
    )
    program = tmp_path / "layout"
    subprocess.run([compiler(), f"-I{source_folder()}", "-o", program, source], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    in_c = dict(line.split() for line in printed.splitlines())
    expected = {
        f"{kind}.{field}": str(dtype.fields[field][1])
        for kind, dtype in FIELDS.items()
        for field in dtype.names
    }
    expected |= {kind: str(dtype.itemsize) for kind, dtype in FIELDS.items()}
    expected |= {"magic": str(layout.PAGE_MAGIC), "version": str(layout.PAGE_VERSION)}
    assert in_c == expected


def test_built_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = build_probe(4)
    stamp = built.stat().st_mtime_ns
    assert build_probe(4) == built
    assert built.stat().st_mtime_ns == stamp
    assert [path.name for path in built.parent.iterdir()] == [built.name]
    others = {build_probe(api) for api in APIS}
    assert built in others and len(others) == len(APIS)


def test_without_a_compiler_the_remedy_names_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(EnvironmentLacks, match="gcc"):
        build_probe(4)


def test_a_compiler_that_refuses_is_quoted(tmp_path, monkeypatch):
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho no such thing as C >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(EnvironmentLacks, match="no such thing as C"):
        build_probe(4)
    assert not list((tmp_path / "retrograde").iterdir())


def test_the_argument_protects_commas_in_the_path(tmp_path):
    with Probe(tmp_path / "a,b.so", NONE, NONE) as probe:
        assert probe.argument == f"{tmp_path}/a,,b.so,fd={probe.fd}"


def test_closed_twice(probe):
    probe.close()
    probe.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"span": (5, 4)},
        {"span": (-1, 4)},
        {"watches": [Watch(0, 0)]},
        {"watches": [Watch(-1, 1)]},
        {"watches": [Watch((1 << 64) - 4, 8)]},
        {"watches": [Watch(0, 1)] * 5000},
        {"breakpoints": [Breakpoint(1), Breakpoint(1)]},
        {"breakpoints": [Breakpoint(-1)]},
        {"breakpoints": [Breakpoint(1 << 64)]},
        {"breakpoints": [Breakpoint(1, (Condition("rax", "==", 0, size=9),))]},
        {"breakpoints": [Breakpoint(1, (Condition(1 << 64, "==", 0),))]},
        {"breakpoints": [Breakpoint(1, (Condition("rip", "==", 0),))]},
        {"registers": [""]},
        {"registers": ["r" * 32]},
    ],
)
def test_what_cannot_be_armed_is_refused_and_changes_nothing(probe, wrong):
    probe.arm(steps=True, span=(1, 2))
    before = bytes(probe._map[: layout.HEADER.itemsize])
    with pytest.raises(UsageError):
        probe.arm(**wrong)
    assert bytes(probe._map[: layout.HEADER.itemsize]) == before
