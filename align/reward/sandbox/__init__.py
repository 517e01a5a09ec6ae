"""Runs code that a model wrote against tests, where it can do no harm.

    verdict = run_tests("def double(x): return 2 * x", ["assert double(2) == 4"])
    verdict.passed, verdict.reason      # (1,), "passed"
    run_program("print(int(input()) + 1)", "41").printed        # "42\\n"
    print(protection())                 # what guards this machine

How it works and what it cannot do: ``docs/sandbox.md``.
"""

from __future__ import annotations

from align.reward.sandbox.client import Sandbox, protection, run_program, run_tests
from align.reward.sandbox.verdict import REASONS, Isolation, Limits, Protection, Run, SandboxError, Verdict

__all__ = [
    "REASONS",
    "Isolation",
    "Limits",
    "Protection",
    "Run",
    "Sandbox",
    "SandboxError",
    "Verdict",
    "protection",
    "run_program",
    "run_tests",
]
