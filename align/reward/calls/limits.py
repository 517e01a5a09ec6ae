"""One call of a reward function as the reward processes make it: seeded, and within a memory limit.

Workers and replay share this, so that a recorded failure is repeated under the same conditions.
"""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from align.reward.calls.arguments import START, Progress
from align.reward.calls.score import call
from align.reward.contract import Sample
from align.reward.functions.registry import RewardFunction
from align.seed import derive_seed
from align.types import Outcome

ENVIRONMENT: Mapping[str, str] = {"OMP_NUM_THREADS": "1"}
"""Of every reward process."""
GRACE_SECONDS = 0.5
"""Added to every limit for the way to the process and back."""
START_SECONDS = 120.0
"""A process must have imported its functions by then."""
DIED = "the call ended its process"
"""Begins the detail of an outcome whose process is gone."""

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reward process says of a call."""

    outcomes: list[Outcome]
    exhausted: bool
    """A call ran out of memory: what the function still holds is unknown, so the process must go."""


def late(seconds: float) -> Outcome:
    """The outcome of a call that gave no answer."""
    return Outcome("timeout", detail=f"no answer within {seconds:g} s", seconds=seconds)


def call_seed(run_seed: int, term: str, step: int, sample: Sample) -> int:
    """What ``random`` and NumPy are seeded with ahead of a call, whichever process makes it."""
    return derive_seed(run_seed, "reward", term, step, sample.prompt_id, sample.sample_index)


class Limits:
    """Limits of the calls in this process. Make it once the functions are imported.

    The memory limit is on private data (``RLIMIT_DATA``, Linux), counted on top of what the process
    held at this moment: a call beyond it gets a MemoryError. Where the system keeps no such account,
    there is no limit.
    """

    def __init__(self) -> None:
        self._held = _data_bytes()

    def call(
        self,
        function: RewardFunction,
        samples: Sequence[Sample],
        *,
        seed: Callable[[Sample], int],
        timeout: float,
        memory_mib: int,
        progress: Progress = START,
    ) -> Answer:
        """One outcome a sample.

        Args:
            function: what to call.
            samples: the samples of the job.
            seed: of a sample; set ahead of its call (of the first, for a list).
            timeout: seconds a coroutine may take; a plain function is stopped from outside.
            memory_mib: memory that the calls may take together.
            progress: where the run stands.
        """
        with self._memory(memory_mib):
            outcomes = call(
                function,
                samples,
                timeout=timeout,
                before=lambda sample: _seed_everything(seed(sample)),
                progress=progress,
            )
        over = [_out_of_memory(outcome) for outcome in outcomes]
        told = [
            replace(outcome, detail=f"{outcome.detail} (limit {memory_mib} MiB)") if spent else outcome
            for outcome, spent in zip(outcomes, over, strict=True)
        ]
        return Answer(told, any(over))

    @contextmanager
    def _memory(self, mib: int) -> Iterator[None]:
        if self._held is None:
            yield
            return
        before = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = self._held + mib * 2**20
        resource.setrlimit(
            resource.RLIMIT_DATA, (wanted if before[1] < 0 else min(wanted, before[1]), before[1])
        )
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def _seed_everything(value: int) -> None:
    random.seed(value)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(value % 2**32)


def _data_bytes() -> int | None:
    """Private writable memory of this process; None where the system does not say."""
    if not _STATUS.exists():
        return None
    found = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmData:")]
    return int(found[0].split()[1]) * 1024 if found else None


def _out_of_memory(outcome: Outcome) -> bool:
    last = outcome.detail.rpartition("\n")[2]
    return outcome.kind == "error" and "MemoryError" in last.partition(":")[0]  # NumPy's has a longer name
