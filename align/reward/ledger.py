"""What failed: a file to replay it from, a budget that ends a run, and the figures of a step."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from align.errors import RewardError
from align.reward.contract import Sample
from align.reward.rows import sample_to_row
from align.reward.terms import Term
from align.types import Outcome, SampleScore

FAILED = frozenset({"error", "timeout"})


class BudgetSpent(RewardError):
    """More reward calls failed than the recipe allows."""

    exit_code = 1


class Ledger:
    """Writes every failed call to ``reward_errors.jsonl`` and stops the run when too many fail.

    Args:
        file: where failures go; made on the first one.
        budget: share of the window that may fail.
        window: number of latest samples that are looked at. The share is taken of the whole
            window even before it is full, so that one early failure does not end a run.
    """

    def __init__(self, file: Path, *, budget: float, window: int) -> None:
        self._file = file
        self._allowed = budget * window
        self._budget = budget
        self._latest: deque[bool] = deque(maxlen=window)
        self._first: tuple[Term, Outcome] | None = None

    def failure(self, term: Term, sample: Sample, outcome: Outcome, *, weight_version: int) -> None:
        """Record one failed call with everything needed to repeat it."""
        self._first = self._first or (term, outcome)
        row = {
            "term": term.name,
            "function": term.function.reference,
            "args": dict(term.function.args),
            "kind": outcome.kind,
            "detail": outcome.detail,
            "seconds": round(outcome.seconds, 6),
            "weight_version": weight_version,
            **sample_to_row(sample),
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")

    def count(self, score: SampleScore) -> None:
        """Count one finished sample.

        Raises:
            BudgetSpent: more than the allowed share of the window failed.
        """
        self._latest.append(any(outcome.kind in FAILED for outcome in score.terms.values()))
        failed = sum(self._latest)
        if failed > self._allowed and self._first is not None:
            term, outcome = self._first
            raise BudgetSpent(
                f"{failed} of the last {len(self._latest)} samples have a failed reward, more than the "
                f"error budget of {self._budget:.0%} of {self._latest.maxlen}; "
                f"the first failure ({outcome.kind}):\n{outcome.detail}",
                file=self._file,
                key=term.name,
                remedy=f"`align rewards test {term.function.reference} --data {self._file}` repeats it",
            )


def summary(terms: Sequence[Term], scores: Sequence[SampleScore]) -> dict[str, float]:
    """Metrics of one step: the combined reward, and of each term ``reward/<term>/`` mean, std,
    abstain_share, error_share, timeout_share, seconds.

    Mean and standard deviation (population) are over the raw scores; the shares are of the samples
    in the term's scope; seconds are summed over calls. A term without any score has no mean.
    """
    rewards = [score.reward for score in scores if score.reward is not None]
    metrics = _moments("reward", rewards)
    metrics["reward/left_out_share"] = 1 - len(rewards) / len(scores) if scores else 0.0
    for term in terms:
        outcomes = [outcome for score in scores if (outcome := score.terms.get(term.name))]
        if not outcomes:
            continue
        group = f"reward/{term.name}"
        metrics |= _moments(group, [outcome.value for outcome in outcomes if outcome.value is not None])
        for kind in ("abstain", "error", "timeout"):
            metrics[f"{group}/{kind}_share"] = sum(outcome.kind == kind for outcome in outcomes) / len(
                outcomes
            )
        metrics[f"{group}/seconds"] = math.fsum(outcome.seconds for outcome in outcomes)
    return metrics


def _moments(group: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return {f"{group}/mean": mean, f"{group}/std": math.sqrt(variance)}
