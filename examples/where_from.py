"""Where did the value of a kernel variable come from?

    python examples/where_from.py NAME.retro max_pfn

Follows it back from the end of the recording through memory and registers. An index
(`retrograde index NAME.retro`) makes that fast; each position is one to go to.
"""

import sys

import retrograde

path, name = sys.argv[1:3]
recording = retrograde.open(path)
symbols = "SELECT address FROM symbols WHERE name = ?"
address = recording.query(symbols, [name]).all()[0][0]
for step in recording.origin(address, 8):
    print(f"{step.position:>13_}  {step.kind:9} {step.instruction:40} {step.what}")
