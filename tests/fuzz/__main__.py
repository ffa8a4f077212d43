"""Run fuzz targets under atheris, which looks for inputs that reach new code.

    ./dev fuzz [TARGET...] [--runs N | --seconds S]

Each target runs in processes of its own until something breaks, N inputs were tried or S
seconds are over. What reached new code is kept in build/fuzz/TARGET, and so is what broke
it: when it is mended, that goes into tests/fuzz/regressions/TARGET.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.mutation import change_bytes
from tests.fuzz.targets import NAMES

FOUND = Path("build/fuzz")
SECONDS = 60
RUNS_OF_ONE = 100_000
"""Inputs that one process reads."""

LONGEST, LARGEST, ALLOCATION = 10, 2048, 512
"""What one input may take: seconds, MB in all and MB at once."""


def main() -> int:
    """Run what the command line names; returns 1 when something broke."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", allow_abbrev=False)
    parser.add_argument("target", nargs="*", choices=[*NAMES, []], metavar="TARGET")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--runs", type=int, help="inputs to try on each target")
    limit.add_argument("--seconds", type=int, default=SECONDS, help="of each target")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.place:
        fuzz(given.target[0], given.runs, given.seconds, given.place)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    broken = []
    for name in given.target or NAMES:
        sys.stdout.write(f"== {name}\n")
        for limit_words in _parts(given.runs, given.seconds):
            sys.stdout.flush()
            words = [sys.executable, "-m", "tests.fuzz", name, *map(str, limit_words)]
            with tempfile.TemporaryDirectory(dir=memory, prefix="retrograde-fuzz-") as place:
                if subprocess.run([*words, "--place", place], check=False).returncode:
                    broken.append(name)
                    break
    sys.stdout.write(f"Broken: {', '.join(broken)}\n" if broken else "Nothing broke.\n")
    return bool(broken)


def _parts(runs: int | None, seconds: int) -> Iterator[tuple[str, int]]:
    """Yield what limits each of the processes that share the work.

    Under atheris a process grows, by 10 kB an input of `rrlog`, which does not grow without.
    """
    if not runs:
        yield "--seconds", seconds
        return
    for done in range(0, runs, RUNS_OF_ONE):
        yield "--runs", min(RUNS_OF_ONE, runs - done)


def fuzz(name: str, runs: int | None, seconds: int, place: Path) -> None:
    """Fuzz one target; atheris ends the process."""
    import atheris

    # Only what is imported in here tells it what code was reached.
    with atheris.instrument_imports(include=["retrograde"]):
        from tests.fuzz.targets import inputs_of, load

        target = load(name)
    corpus = FOUND / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(inputs_of(name)):
        (corpus / f"seed{number}").write_bytes(seed)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        changed = target.mutate(data, chance)
        if chance.randrange(2):
            return changed[:most]
        return bytes(atheris.Mutate(changed[:most], most))

    options = [
        f"-runs={runs}" if runs else f"-max_total_time={seconds}",
        f"-artifact_prefix={FOUND / name}/",
        f"-timeout={LONGEST}",
        f"-rss_limit_mb={LARGEST}",
        f"-malloc_limit_mb={ALLOCATION}",
        f"-max_len={target.MOST}",
        "-print_final_stats=1",
    ]
    one_input = target.open_target(place)
    # Single bytes atheris changes better itself.
    own = {} if target.mutate is change_bytes else {"custom_mutator": mutate}
    atheris.Setup([sys.argv[0], *options, os.fspath(corpus)], one_input, **own)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
