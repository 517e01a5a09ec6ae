"""The benchmark that plays engines drives the real loop."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_two_sizes_are_driven_through_all_stages(repo_root: Path) -> None:
    script = repo_root / "benchmarks/driver_scale.py"
    asked = [sys.executable, str(script), "--engines", "1", "3", "--sequences", "8", "--group", "4"]
    asked += ["--tokens", "64", "--steps", "2"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    one, three, grown = done.stdout.strip().splitlines()
    assert one.startswith("1 engines, 8 completions: driver ")
    assert three.startswith("3 engines, 24 completions: driver ")
    assert "exponents 1 → 3: " in grown
    for line in (one, three):
        seconds = {name: float(value) for name, value in re.findall(r"(\w+) (\d+\.\d+)", line)}
        assert {"rollout", "score", "reference", "update", "report"} <= seconds.keys()
        assert all(value >= 0 for value in seconds.values())
        # Longest of 64 tokens in 60 s; as many groups as there is room for, so nobody waits.
        virtual = re.search(r"s of (\d+) \(", line)
        assert virtual
        assert int(virtual[1]) == 60
