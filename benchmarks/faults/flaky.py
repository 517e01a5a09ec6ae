"""The rule for maths answers, with faults: a share of the calls raises, hangs, crashes or eats memory.

Which calls fail, and how, depends on the sample alone, so a run can be repeated.
"""

from __future__ import annotations

import hashlib
import os
import time

from align.reward import Sample, reward

KINDS = ("exception", "hang", "crash", "memory")


@reward(timeout=2)
def flaky(sample: Sample, share: float = 0.1) -> float:
    """1 where the answer is right, else 0; ``share`` of the calls fail, evenly by kind."""
    if kind := fault(sample.prompt_id, sample.sample_index, sample.completion, share):
        fail(kind)
    return float(sample.completion.strip().endswith(f"Answer: {sample['answer']}"))


def fault(prompt_id: str, sample_index: int, completion: str, share: float) -> str | None:
    """How the call on this sample fails; None if it works, as it does at start-up."""
    name = f"{prompt_id}/{sample_index}/{completion}"
    draw = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64
    return KINDS[int(draw / share * len(KINDS))] if draw < share and prompt_id else None


def fail(kind: str) -> None:
    """Fail in the given way."""
    if kind == "exception":
        raise ValueError("a fault on purpose")
    if kind == "hang":
        time.sleep(3600)
    if kind == "crash":
        os._exit(3)
    hoard = [bytearray(1 << 26) for _ in range(1 << 10)]  # 64 GiB, unless something stops it
    raise AssertionError(f"nothing stopped {len(hoard)} blocks of memory")
