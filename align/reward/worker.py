"""What a reward process does: calls functions, one job at a time, in its main thread.

Ray's workers, the start-up call and replay all run this, so that one function meets the same limits
wherever it is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.reward.contract import Sample
from align.reward.limits import Answer, Limits, call_seed
from align.reward.registry import resolve


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker must know of one function."""

    reference: str
    """What ``align.reward.registry.resolve`` finds it by."""
    args: Mapping[str, Any]
    timeout: float
    memory_mib: int


class RewardWorker:
    """Calls reward functions in a process of its own.

    Args:
        terms: by name.
        seed: the run's seed.

    Raises:
        RewardError: a function cannot be imported.
    """

    def __init__(self, terms: Mapping[str, Assignment], seed: int) -> None:
        self._terms = terms
        self._functions = {name: resolve(term.reference, term.args) for name, term in terms.items()}
        self._seed = seed
        self._limits = Limits()

    def ready(self) -> None:
        """Returns once the functions are imported."""

    def score(self, term: str, samples: Sequence[Sample], step: int) -> Answer:
        """One outcome a sample. ``random`` and NumPy are seeded per call, whichever worker runs it."""
        limits = self._terms[term]
        return self._limits.call(
            self._functions[term],
            samples,
            seed=lambda sample: call_seed(self._seed, term, step, sample),
            timeout=limits.timeout,
            memory_mib=limits.memory_mib,
        )
