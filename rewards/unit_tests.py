"""Code by unit tests: runs the answer's code against the row's tests, in a sandbox.

Columns: ``tests``, statements such as ``assert double(2) == 4``, or inputs and outputs of a program or a
function; ``input_output``, ``inputs`` with ``outputs``, or ``ground_truth`` in its place, as the data sets
name them. Optionally ``setup``, statements that run between the code and the tests.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import get_args

from align.reward import Sample, reward
from align.reward.sandbox import Isolation, Limits, Verdict, run_program, run_tests

from ._code_choice import is_method, module_of, names_of, program_of
from ._code_nodes import NODES, signature_of, trimmed
from ._code_tests import PRELUDE, SAME, Calls, Runs, Statements, same_output, tests_of

_FUTURE = re.compile(r"(?:from __future__ import .*\n)*")


@reward(timeout=30)
def unit_tests(
    sample: Sample,
    partial_credit: bool = False,
    timeout: float = 5.0,
    memory_mb: int = 512,
    isolation: Isolation = "required",
) -> dict[str, float] | None:
    """1 where the code passes all tests, else 0; abstains where the tests are null.

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
    limits = Limits(wall_seconds=timeout, cpu_seconds=int(timeout) + 1, memory_mb=memory_mb)
    asked = tests_of(sample)
    if asked is None:
        return None
    if isinstance(asked, Runs):
        verdict = _of_runs(program_of(sample.completion), asked, limits, isolation)
    else:
        setup = sample.get("setup") or ""
        judged = _of_calls if isinstance(asked, Calls) else _of_statements
        code, tests, setup = judged(sample, asked, setup)
        verdict = run_tests(code, tests, setup=setup, limits=limits, isolation=isolation)
    share = verdict.share
    parts = {"share": share}
    if verdict.reason != "passed":
        parts[verdict.reason if sample.completion.strip() else "no_code"] = 1.0
    return {"score": share if partial_credit else float(share == 1.0), **parts}


def _of_statements(sample: Sample, asked: Statements, setup: str) -> tuple[str, list[str], str]:
    """Code, tests and setup."""
    return (
        module_of(sample.completion, names_of([setup, *asked.tests]), _contexts(sample)),
        asked.tests,
        setup,
    )


def _of_calls(sample: Sample, asked: Calls, setup: str) -> tuple[str, list[str], str]:
    """Code, tests and setup, for a function or a method of a class ``Solution``."""
    code = module_of(sample.completion, {asked.name, "Solution"}, _contexts(sample))
    first = _FUTURE.match(code)
    assert first is not None
    code = first[0] + PRELUDE + code[first.end() :]
    function = f"Solution().{asked.name}" if is_method(code, asked.name) else asked.name
    given_all = [given for given, _ in asked.cases]
    signature = signature_of(asked.name, code, _contexts(sample), "tests", given_all)
    if signature.nodes:
        tests = []
        for given, expected in asked.cases:
            wanted = trimmed(expected, signature)
            rest = f"{signature.arguments!r}, {signature.result!r}, {isinstance(wanted, list)}, {given!r}"
            tests.append(f"assert _accepted(_with_nodes({function}, {rest}), {wanted!r})")
        return f"{code}\n{NODES}", tests, f"{SAME}\n{setup}"
    tests = [
        f"assert _accepted({function}({', '.join(map(repr, given))}), {wanted!r})"
        for given, wanted in asked.cases
    ]
    return code, tests, f"{SAME}\n{setup}"


def _of_runs(code: str, asked: Runs, limits: Limits, isolation: Isolation) -> Verdict:
    """Each input in a process of its own, until the time is over."""
    statuses: list[str] = []
    detail, end = "", time.monotonic() + limits.wall_seconds
    for given, wanted in asked.cases:
        left = end - time.monotonic()
        if left <= 0:
            statuses.append("timeout")
            continue
        size = max(limits.output_kb, 2 * len(wanted.encode()) >> 10)
        run = run_program(
            code,
            given,
            limits=replace(limits, wall_seconds=left, cpu_seconds=int(left) + 1, output_kb=size),
            isolation=isolation,
        )
        right = run.status != "passed" or same_output(wanted, run.printed)
        statuses.append(run.status if right else "failed")
        detail = detail or run.detail
    return Verdict(tuple(statuses), detail)


def _contexts(sample: Sample) -> list[str]:
    """Texts that may give the signature: starter code, the last request."""
    starter = sample.get("starter_code")
    asked = [turn["content"] for turn in sample.prompt if turn["role"] == "user"][-1:]
    return [text for text in (starter, *asked) if isinstance(text, str) and text]
