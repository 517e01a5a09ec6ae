"""Code by unit tests: runs the answer's code block against the row's tests, in a sandbox.

Columns: ``tests``, a list of statements such as ``assert double(2) == 4`` (or one text, which counts as
one test), and optionally ``setup``, statements that run between the code and the tests.
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import get_args

from align.reward import Sample, reward
from align.reward.sandbox import Isolation, Limits, run_tests

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = frozenset({"", "py", "python", "python3"})
_DEFINES = re.compile(r"^(?:async def|def|class)\b", re.MULTILINE)


@reward(timeout=30)
def unit_tests(
    sample: Sample,
    partial_credit: bool = False,
    timeout: float = 5.0,
    memory_mb: int = 512,
    isolation: Isolation = "required",
) -> dict[str, float] | None:
    """1 where the code passes all tests, else 0; abstains where ``tests`` is null.

    The parts hold ``share``, the share of the tests that passed, and, where that is not all of them, a 1
    under the reason of the first that did not: ``no_code`` or one of the sandbox's reasons.

    Args:
        partial_credit: the score is the share of the tests that passed.
        timeout: seconds for the code and all its tests together.
        memory_mb: address space of the code, MiB.
        isolation: ``required`` runs nothing on a machine that cannot isolate it; ``best_effort`` does.
    """
    if isolation not in get_args(Isolation):
        raise ValueError(f"isolation is one of {', '.join(get_args(Isolation))}; got {isolation!r}")
    tests = sample["tests"]
    if tests is None:
        return None
    limits = Limits(wall_seconds=timeout, cpu_seconds=int(timeout) + 1, memory_mb=memory_mb)
    verdict = run_tests(
        code_of(sample.completion),
        [tests] if isinstance(tests, str) else list(tests),
        setup=sample.get("setup") or "",
        limits=limits,
        isolation=isolation,
    )
    share = verdict.share
    parts = {"share": share}
    if verdict.reason != "passed":
        parts[verdict.reason if sample.completion.strip() else "no_code"] = 1.0
    return {"score": share if partial_credit else float(share == 1.0), **parts}


def code_of(text: str) -> str:
    """The last fenced Python block that defines a function or class, else the last one, else all of it.

    A block that is never closed goes on to the end. What indents all of it does not count: templates that
    end in ``Assistant:`` leave a space in front of an answer.
    """
    found = [code for language, code in _FENCE.findall(text) if language.lower() in _PYTHON]
    blocks = [dedent(code).strip() for code in found]
    defining = [code for code in blocks if _DEFINES.search(code)]
    return (defining or blocks or [dedent(text).strip()])[-1]
