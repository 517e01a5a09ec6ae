from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from align.cluster.memory import PeakMemory

memory = PeakMemory("cpu")
idle = memory.take_gib()
block = bytearray(256 * 2**20)
block[::4096] = b"x" * len(block[::4096])
del block
print(idle, memory.take_gib(), memory.take_gib(), memory.largest_gib())
"""


def test_each_peak_begins_where_the_last_was_taken():
    """In a process of its own: other tests move this one's memory."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    idle, with_block, after, largest = map(float, done.stdout.split())
    assert 0.24 < with_block - idle < 0.3
    assert abs(after - idle) < 0.02
    assert largest == with_block
