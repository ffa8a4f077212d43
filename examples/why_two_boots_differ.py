"""Why do two boots of one machine differ? Says where, and what the logs had told before.

python examples/why_two_boots_differ.py A.retro B.retro
"""

import asyncio
import sys

import retrograde
from retrograde.index.compare.diff import find_difference

first, second = (retrograde.open(path) for path in sys.argv[1:3])
found = asyncio.run(find_difference(first, second))
if found is None:
    sys.exit("They run the same instructions.")
print(f"Equal for certain up to {found.input_position:_}, other code from {found.position:_} on:")
for recording, side in zip((first, second), found.sides, strict=True):
    print(f"{recording.name} goes to {side.pc:#x}")
ours, theirs = (side.registers for side in found.sides)
names = [name for name in ours if ours[name] != theirs[name] and name != "rip"]
print("Registers that differ:", *names)
for name in names[:1]:
    print(f"What is in {name} there is from")
    for step in first.origin(name, at=found.position):
        print(f"{step.position:>13_}  {step.kind:9} {step.instruction:40} {step.what}")
