"""From the outcomes of the terms to one reward a sample.

A score is calibrated, then clipped: s = clip(calibrate(x)). Of the terms k with weight c_k

    weighted_sum   r = Σ c_k · s_k                       DeepSeek-V2 §4.2; c1…c3 are not given there
    group_norm     r = Σ c_k · (s_k − mean_k) / (std_k + 1e-4), inside the group, as GDPO does
    constrained    r = Σ c_k · s_k + Σ λ_j · (s_j − b_j), terms j under a constraint, then λ is updated

A term that abstains, or whose ``where`` leaves the row out, adds nothing. A term that failed leaves no
reward at all: a failure must not look like a zero, so the sample drops out of its group.

A step may come in several rounds (dynamic sampling). All of them are judged alike: multipliers and running
calibrations are those after the first round's scores, and take in the others' when the step ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from align.algo.advantage import group_advantages
from align.config.grpo import AdvantageConfig
from align.errors import CheckpointError
from align.reward.bank.calibration import RunningCalibration
from align.reward.bank.constraint import Multiplier
from align.reward.bank.terms import Term
from align.types import Outcome

Outcomes = Mapping[str, Outcome]
"""What the terms that cover a row said of one sample, by name."""

FAILED = frozenset({"error", "timeout"})


class Combination:
    """How the terms of a run become one reward, with all that is learned on the way.

    Args:
        terms: all terms of the run.
        mode: the recipe's ``rewards.combine``.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        mode: Literal["weighted_sum", "group_norm", "constrained"] = "weighted_sum",
    ) -> None:
        self._terms = {term.name: term for term in terms}
        self._mode = mode
        self._begun = False
        self._later: list[Outcomes] = []
        """Of the rounds after the first, for the running calibrations."""
        self._scored: list[Mapping[str, float]] = []
        """Scaled scores of the step's samples that have a reward."""
        self.running = {term.name: RunningCalibration() for term in terms if term.calibration == "running"}
        self.multipliers = {term.name: Multiplier(term.constraint) for term in terms if term.constraint}

    def rewards(self, groups: Sequence[Sequence[Outcomes]]) -> list[list[float | None]]:
        """The rewards of a step, or of one round of it; :meth:`end_step` must follow the last.

        Args:
            groups: per group and sample, one outcome for every term that covers the row.

        Returns:
            One reward a sample, in the same order; None where a term failed or none had a score.
        """
        samples = [outcomes for group in groups for outcomes in group]
        if self._begun:
            self._later += samples
        else:
            self._take_in(samples)
        self._begun = True
        scaled = [[self._scaled(outcomes) for outcomes in group] for group in groups]
        combined = [[self._sum(scores) if scores else None for scores in group] for group in scaled]
        self._scored += [scores for group in scaled for scores in group if scores]
        if self._mode == "group_norm":
            return [self._normalised(group) for group in scaled]
        return combined

    def end_step(self) -> dict[str, float]:
        """Move multipliers and running calibrations by what the step has shown.

        Returns:
            Of the step: ``reward/weighted_mean`` (the mean weighted sum, where the reward is another figure),
            and of each constrained term ``multiplier`` (as used) and ``slack`` (mean − bound).
        """
        self._take_in(self._later)
        metrics = self._learn(self._scored)
        self._begun, self._later, self._scored = False, [], []
        return metrics

    def _take_in(self, samples: Sequence[Outcomes]) -> None:
        for name, running in self.running.items():
            values = [_value(outcomes, name) for outcomes in samples]
            running.update([value for value in values if value is not None])

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: JSON values."""
        return {
            "running": {name: running.state_dict() for name, running in self.running.items()},
            "multipliers": {name: multiplier.value for name, multiplier in self.multipliers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken.

        Raises:
            CheckpointError: it is of a run with other terms.
        """
        if set(state["running"]) != set(self.running) or set(state["multipliers"]) != set(self.multipliers):
            raise CheckpointError(
                "the saved state of the rewards is of other terms",
                key="rewards",
                remedy="resume with the recipe that the checkpoint was written under",
            )
        for name, running in self.running.items():
            running.load_state_dict(state["running"][name])
        for name, multiplier in self.multipliers.items():
            multiplier.value = state["multipliers"][name]

    def _scaled(self, outcomes: Outcomes) -> dict[str, float]:
        """Calibrated and clipped scores; empty when the sample gets no reward."""
        if any(outcome.kind in FAILED for outcome in outcomes.values()):
            return {}
        return {
            name: clipped(self._calibrated(term, value), term.clip)
            for name, term in self._terms.items()
            if (value := _value(outcomes, name)) is not None
        }

    def _calibrated(self, term: Term, value: float) -> float:
        if term.calibration == "running":
            return self.running[term.name].standard(value)
        if term.saved is None:
            return value
        return term.saved.standard(value) if term.calibration == "saved" else term.saved.share(value)

    def _sum(self, scores: Mapping[str, float]) -> float:
        return math.fsum(
            self.multipliers[name].term(score)
            if name in self.multipliers
            else self._terms[name].weight * score
            for name, score in scores.items()
        )

    def _normalised(self, group: Sequence[Mapping[str, float]]) -> list[float | None]:
        """Each term less its group mean, over its group's spread, before the weighted sum."""
        parts: list[list[float]] = [[] for _ in group]
        for name, term in self._terms.items():
            column = group_advantages([scores.get(name) for scores in group], AdvantageConfig())
            for part, value in zip(parts, column, strict=True):
                if value is not None:
                    part.append(term.weight * value)
        return [math.fsum(part) if part else None for part in parts]

    def _learn(self, scored: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The step's figures; moves the multipliers.

        Args:
            scored: the scaled scores of each sample that has a reward.
        """
        metrics: dict[str, float] = {}
        weighted = {name: term.weight for name, term in self._terms.items() if name not in self.multipliers}
        if scored and self._mode != "weighted_sum":
            sums = [
                math.fsum(weight * scores.get(name, 0.0) for name, weight in weighted.items())
                for scores in scored
            ]
            metrics["reward/weighted_mean"] = math.fsum(sums) / len(sums)
        for name, multiplier in self.multipliers.items():
            metrics[f"reward/{name}/multiplier"] = multiplier.value
            values = [scores[name] for scores in scored if name in scores]
            if values:
                mean = math.fsum(values) / len(values)
                metrics[f"reward/{name}/slack"] = mean - multiplier.bound
                multiplier.update(mean)
        return metrics


def clipped(value: float, limits: tuple[float, float] | None) -> float:
    """``value`` clamped to [low, high]."""
    return value if limits is None else min(max(value, limits[0]), limits[1])


def _value(outcomes: Outcomes, name: str) -> float | None:
    outcome = outcomes.get(name)
    return outcome.value if outcome is not None and outcome.kind == "ok" else None
