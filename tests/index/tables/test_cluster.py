"""The index made by a real cluster on this machine: a scheduler and two workers."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrograde.errors import EnvironmentLacks
from retrograde.index.tables import cluster as cluster_module
from retrograde.index.tables.build import build
from retrograde.index.tables.store import IndexStore
from retrograde.recording.archive import pack
from retrograde.recording.bundle import Recording
from tests import leftovers
from tests.command import assert_error, retrograde
from tests.index.tables.test_build import DENSE, files
from tests.system.test_disk import cannot_mount

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("probe")]

SCHEDULER = (*("-m", "distributed.cli.dask_scheduler"), *("--host", "127.0.0.1", "--port", "0"))
QUIET = ("--no-dashboard",)
HIDE = 'mount -t tmpfs none "$0" && exec "$@"'

BUILD = """
import asyncio, os, signal, sys
from retrograde.index.tables.build import build
from retrograde.recording.bundle import Recording

path, address, victim, *fetch = sys.argv[1:]
seen = []

def progress(position):
    seen.append(position)
    if len(seen) == 2:  # the first tells what was done before
        os.kill(int(victim), signal.SIGKILL)

recording, url = Recording.open(path), fetch[0] if fetch else None
report = asyncio.run(build(recording, cluster=address, fetch=url, progress=progress))
assert seen == sorted(seen), seen
print(report.intervals)
"""


class Running:
    """A process of the cluster, ended with the test."""

    def __init__(self, *arguments: str, hidden: Path | None = None, **environment: str) -> None:
        command = [sys.executable, *arguments]
        if hidden:
            if reason := cannot_mount():
                pytest.skip(f"nothing can be hidden here: {reason}")
            command = [*("unshare", "-rm", "sh", "-c", HIDE), str(hidden), *command]
        surroundings = {**os.environ, **environment}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=surroundings
        )

    def wait_for(self, pattern: str) -> str:
        """Return what its log says, as soon as it does."""
        assert self.process.stderr
        said = []
        for line in self.process.stderr:
            said.append(line.decode())
            if match := re.search(pattern, said[-1]):
                return match[1] if match.groups() else match[0]
        raise AssertionError("".join(said))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr
        self.process.stderr.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., tuple[str, list[int]]]]:
    """`cluster(2, PATH=…)`: the address of a scheduler, and the pids of its workers.

    These do not see what is in the folder `hidden`.
    """
    running: list[Running] = []

    def start(
        workers: int, hidden: Path | None = None, **environment: str
    ) -> tuple[str, list[int]]:
        running.append(Running(*SCHEDULER, *QUIET))
        address = running[0].wait_for(r"Scheduler at:\s+(tcp://\S+)")
        for number in range(workers):
            folder = str(tmp_path / f"worker{number}")
            command = (*("-m", "distributed.cli.dask_worker", address), "--no-nanny", *QUIET)
            options = ("--nthreads", "1", "--local-directory", folder)
            running.append(Running(*command, *options, hidden=hidden, **environment))
        for worker in running[1:]:
            worker.wait_for("Registered to")
        return address, [worker.process.pid for worker in running[1:]]

    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [one.end() for one in reversed(running)])
        yield start


@pytest.fixture(scope="module")
def original(recorded: Callable[..., Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with checkpoints close together, and its index by one process."""
    path = tmp_path_factory.mktemp("cluster") / "stacks.retro"
    shutil.copytree(recorded("stacks").path, path, ignore=shutil.ignore_patterns("cache"))
    sparser = DENSE.replace("500_000", "1_900_000")
    subprocess.run([sys.executable, "-c", sparser, path], check=True, timeout=120)
    return path


@pytest.fixture
def fresh(original: Path, tmp_path: Path) -> Path:
    """The same recording with the same checkpoints, not indexed yet."""
    return Path(
        shutil.copytree(original, tmp_path / "fresh.retro", ignore=shutil.ignore_patterns("index"))
    )


def test_a_worker_that_dies_costs_nothing(
    original: Path, fresh: Path, cluster: Callable[..., tuple[str, list[int]]]
) -> None:
    address, workers = cluster(2)
    command = [sys.executable, "-c", BUILD, fresh, address, str(workers[0])]
    told = subprocess.run(command, check=True, timeout=240, stdout=subprocess.PIPE).stdout
    assert int(told) == len(IndexStore(Recording.open(fresh)).done("blocks")) > 3
    assert not Path(f"/proc/{workers[0]}/exe").exists()
    assert files(fresh) == files(original)
    assert leftovers.settled_qemus() == []


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """A folder, the URL it is served at, and the requests so far."""
    folder, requests = tmp_path / "web", list[str]()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            requests.append(self.path)

    folder.mkdir()
    serve = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


def test_workers_that_do_not_see_the_recording_fetch_it(
    original: Path,
    fresh: Path,
    cluster: Callable[..., tuple[str, list[int]]],
    web: tuple[Path, str, list[str]],
    tmp_path: Path,
) -> None:
    folder, url, requests = web
    pack(Recording.open(fresh), folder / "some.tar.zst")
    address, _workers = cluster(2, hidden=fresh)
    assert_error(retrograde("index", fresh, "--cluster", address), 2, "is not a recording")
    missing = retrograde("index", fresh, "--cluster", address, "--fetch", f"{url}/none.tar.zst")
    assert_error(missing, 2, "none.tar.zst cannot be read: it is not there")
    requests.clear()
    run = retrograde("index", fresh, "--cluster", address, "--fetch", f"{url}/some.tar.zst")
    assert run.status == 0, run.stderr
    assert requests in (["/some.tar.zst"], ["/some.tar.zst"] * 2)  # each worker once at most
    assert files(fresh) == files(original)
    assert not list(tmp_path.glob("worker*/**/tmp*"))


def test_a_worker_that_fetched_dies(
    original: Path, fresh: Path, cluster: Callable[..., tuple[str, list[int]]], tmp_path: Path
) -> None:
    there = shutil.copytree(fresh, tmp_path / "there", ignore=shutil.ignore_patterns("cache"))
    address, workers = cluster(2, hidden=fresh)
    command = [sys.executable, "-c", BUILD, fresh, address, str(workers[0]), f"file://{there}"]
    told = subprocess.run(command, check=True, timeout=240, stdout=subprocess.PIPE).stdout
    assert int(told) == len(IndexStore(Recording.open(fresh)).done("blocks")) > 3
    assert not Path(f"/proc/{workers[0]}/exe").exists()
    assert files(fresh) == files(original)
    assert leftovers.settled_qemus() == []


def test_another_qemu_is_refused(
    fresh: Path, tmp_path: Path, cluster: Callable[..., tuple[str, list[int]]]
) -> None:
    there = tmp_path / "bin" / "qemu-system-x86_64"
    there.parent.mkdir()
    there.write_text(f'#!/bin/sh\nexec {shutil.which(there.name)} "$@"\n')
    there.chmod(0o755)
    address, _workers = cluster(1, PATH=f"{there.parent}:{os.environ['PATH']}")
    run = retrograde("index", fresh, "--cluster", address)
    assert_error(run, 3, "another build")
    assert "The worker on" in run.stderr


async def test_a_cluster_that_is_not_there(
    fresh: Path, cluster: Callable[..., tuple[str, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_error(retrograde("index", fresh, "--cluster", "localhost"), 2, "is no scheduler")
    assert_error(retrograde("index", fresh, "--fetch", "file:///x"), 2, "Give --cluster")
    traced = retrograde("index", fresh, "--writes", "all", "--cluster", "tcp://127.0.0.1:1")
    assert_error(traced, 2, "Leave --cluster")
    monkeypatch.setattr(cluster_module, "SECONDS", 1)
    with pytest.raises(EnvironmentLacks, match="No scheduler answers"):
        await build(Recording.open(fresh), cluster="tcp://127.0.0.1:1")
    with pytest.raises(EnvironmentLacks, match="has no workers"):
        await build(Recording.open(fresh), cluster=cluster(0)[0])
