"""What did the machine do between two console lines? Needs `retrograde index` first.

python examples/between_two_lines.py NAME.retro "PCI: Using" "Run /init"
"""

import sys

import retrograde

SQL = """
SELECT name, count(*) AS calls, min(position) AS first
FROM functions WHERE position BETWEEN ? AND ? AND name IS NOT NULL
GROUP BY name ORDER BY calls DESC LIMIT 15
"""

recording = retrograde.open(sys.argv[1])
start, stop = (recording.resolve(f"console:{text}") for text in sys.argv[2:4])
print(f"{stop - start:_} instructions between them; most called:")
for name, calls, first in recording.query(SQL, [start, stop]):
    print(f"{calls:>10_} {name}, first at {first:_}")
