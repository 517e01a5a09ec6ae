"""What failed: a file to replay it from, a budget that ends a run, and the figures of a step."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.errors import RewardError
from align.reward.bank.terms import Term
from align.reward.contract import Sample
from align.reward.functions.rows import sample_to_row
from align.types import Outcome, SampleScore

KINDS = ("ok", "abstain", "error", "timeout")


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
        seed: the run's seed, from which those of the calls derive.
    """

    def __init__(self, file: Path, *, budget: float, window: int, seed: int = 0) -> None:
        self._file = file
        self._seed = seed
        self._allowed = budget * window
        self._budget = budget
        self._latest: deque[bool] = deque(maxlen=window)
        self._first: dict[str, str] | None = None

    def failure(
        self,
        term: Term,
        sample: Sample,
        outcome: Outcome,
        *,
        weight_version: int,
        together: Sequence[Sample] = (),
    ) -> None:
        """Record one failed call with everything needed to repeat it (``align.reward.bank.replay``).

        Args:
            term: the term that failed.
            sample: the sample it failed on.
            outcome: how.
            weight_version: version of the weights that sampled it.
            together: all samples of the call, where the function took several at once.
        """
        source = term.function.reference if term.function else f"model {term.model}"
        if self._first is None:
            self._first = {"term": term.name, "what": f"{source}, {outcome.kind}", "detail": outcome.detail}
        row: dict[str, Any] = {
            "term": term.name,
            "function": term.function.reference if term.function else None,
            "model": term.model,
            "args": dict(term.function.args) if term.function else {},
            "kind": outcome.kind,
            "detail": outcome.detail,
            "seconds": round(outcome.seconds, 6),
            "weight_version": weight_version,
            "seed": self._seed,
            "timeout": term.timeout,
            "memory_mib": term.memory_mib,
            "max_steps": term.max_steps,
            **sample_to_row(sample),
        }
        if len(together) > 1:
            row["together"] = [sample_to_row(each) for each in together]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")

    def count(self, failed: bool) -> None:
        """Count one finished sample.

        Args:
            failed: one of its terms ended as error or timeout.

        Raises:
            BudgetSpent: more than the allowed share of the window failed.
        """
        self._latest.append(failed)
        failures = sum(self._latest)
        if failures > self._allowed and self._first is not None:
            raise BudgetSpent(
                f"{failures} of the last {len(self._latest)} samples have a failed reward, more than the "
                f"error budget of {self._budget:.0%} of {self._latest.maxlen}; "
                f"the first failure ({self._first['what']}):\n{self._first['detail']}",
                file=self._file,
                key=self._first["term"],
                remedy=f"`align rewards replay {self._file}` repeats it; "
                "mend it and continue from the last checkpoint with --resume",
            )

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: JSON values."""
        return {
            "window": [int(failed) for failed in self._latest],
            "first": self._first,
            "written": self._file.stat().st_size if self._file.exists() else 0,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken; failures written since then are removed."""
        self._latest.clear()
        self._latest.extend(bool(failed) for failed in state["window"])
        self._first = state["first"]
        written = state.get("written")  # checkpoints once did without; then every row stays
        if written is not None and self._file.exists() and self._file.stat().st_size > written:
            os.truncate(self._file, written)


def summary(terms: Sequence[Term], scores: Sequence[SampleScore]) -> dict[str, float]:
    """Metrics of one step: the combined reward, and of each term ``reward/<term>/`` mean, std, ok,
    abstain, error, timeout, seconds.

    Mean and standard deviation (population) are over the raw scores; ok to timeout count the samples
    in the term's scope by outcome; seconds are summed over calls. A term without any score has no mean.
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
        for kind in KINDS:
            metrics[f"{group}/{kind}"] = float(sum(outcome.kind == kind for outcome in outcomes))
        metrics[f"{group}/seconds"] = math.fsum(outcome.seconds for outcome in outcomes)
    return metrics


def _moments(group: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return {f"{group}/mean": mean, f"{group}/std": math.sqrt(variance)}
