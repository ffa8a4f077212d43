"""A guest's list of modules, as real gdb reads it: names in it become words of gdb's commands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from retrograde.gdbserver import monitor
from tests.command import SECONDS

pytestmark = [
    pytest.mark.gdb,
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
]

KERNEL = """
struct list_head { struct list_head *next, *prev; };
struct attribute { const char *name; };
struct bin_attribute { struct attribute attr; };
struct section { struct bin_attribute battr; unsigned long address; };
struct sections { unsigned nsections; struct section attrs[2]; };
struct module { struct list_head list; char name[90]; struct sections *sect_attrs; };
struct { struct { char release[65]; } name; } init_uts_ns = { { RELEASE } };
extern struct list_head modules;
struct sections parts = { 2, { { { { ".text" } }, 0x1000 }, { { { SECTION } }, 0x2000 } } };
struct module one = { { &modules, 0 }, NAME, &parts };
struct list_head modules = { &one.list, 0 };
int main(void) { return 0; }
"""


def load_modules(place: Path, name: str, section: str, release: str, *, folders: str) -> str:
    """Have gdb load the modules of a kernel whose memory holds these; returns what it says."""
    words = {"NAME": name, "SECTION": section, "RELEASE": release}
    text = KERNEL
    for word, value in words.items():
        escaped = "".join(f"\\{byte:03o}" for byte in value.encode())
        text = text.replace(word, f'"{escaped}"')
    (place / "kernel.c").write_text(text)
    subprocess.run(["cc", "-g", "-o", "kernel", "kernel.c"], cwd=place, check=True)
    (place / "files").mkdir()
    subprocess.run(["cc", "-g", "-c", "-o", "files/good.ko", "kernel.c"], cwd=place, check=True)
    script, folder = place / "script.py", Path(monitor.__file__).parents[1]
    places = [str(folder / "gdbserver"), str(folder / "index" / "symbols")]
    script.write_text(
        f"import sys; sys.path[:0] = {places}\n"
        f"import gdbsymbols; from pathlib import Path\n"
        f"gdbsymbols.load_modules({folders})\n"
        "gdb.execute('info files')\n"
    )
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "kernel", "-ex", f"source {script}"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


FILES = "[Path('files')]"


def test_a_module_is_put_where_it_is(tmp_path):
    said = load_modules(tmp_path, "good", ".data..percpu", "6.1.0-48", folders=FILES)
    assert "good is at 0x1000" in said


@pytest.mark.parametrize(
    "section",
    [".x\nshell touch ran\n", ".x\nshell touch ran", "$(touch ran)", ".x -readnow", "-x", "\x1b]"],
)
def test_a_sections_name_is_no_command(tmp_path, section):
    said = load_modules(tmp_path, "good", section, "6.1.0-48", folders=FILES)
    assert "good is at 0x1000" in said
    assert "\x1b" not in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["\x1b]0;title\x07", "a\nb", "\u202e", ""])
def test_a_modules_name_does_not_command_the_terminal(tmp_path, name):
    said = load_modules(tmp_path, name, ".data", "6.1.0-48", folders=FILES)
    assert "No file of module" not in said
    assert not {"\x1b", "\u202e"} & set(said)


@pytest.mark.parametrize("release", ["files", "../files", "/", ".."])
def test_a_kernels_release_is_no_path(tmp_path, release):
    """Modules are looked for below the folder of that name, and nowhere else."""
    where = f"[] if not setattr(gdbsymbols, '_DEBUG_MODULES', Path({str(tmp_path / 'a')!r})) else 0"
    (tmp_path / "a").mkdir()
    said = load_modules(tmp_path, "good", ".data", release, folders=where)
    assert "No file of module good was found" in said
