"""What a reward process does: calls functions, one job at a time, in its main thread.

Ray's workers, the start-up call and replay all run this, so that one function meets the same limits
wherever it is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.reward.calls.arguments import Progress
from align.reward.calls.limits import Answer, Limits, call_seed
from align.reward.calls.parcel import Parcel, arrived
from align.reward.contract import Sample
from align.reward.functions.registry import resolve


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker must know of one function."""

    reference: str
    """What ``align.reward.functions.registry.resolve`` finds it by."""
    args: Mapping[str, Any]
    timeout: float
    memory_mib: int
    max_steps: int = 1
    """Steps of the run, as TRL's ``trainer_state`` tells them."""
    parcel: Parcel | None = None
    """The file itself, for machines that do not have it."""


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
        self._functions = {
            name: resolve(arrived(term.parcel, term.reference), term.args) for name, term in terms.items()
        }
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
            progress=Progress(step, limits.max_steps),
        )

    def score_several(self, jobs: Sequence[tuple[str, Sequence[Sample], int]]) -> list[Answer]:
        """:meth:`score` of each, up to the first that ran out of memory."""
        answers: list[Answer] = []
        for job in jobs:
            answers.append(self.score(*job))
            if answers[-1].exhausted:
                break
        return answers
