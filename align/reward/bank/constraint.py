"""A term held at or above a value by a Lagrange multiplier.

The run maximises E[r] subject to E[s] ≥ b, through r + λ·(s − b) with λ ≥ 0 and dual ascent on λ
(Safe RLHF, Dai et al. 2023). While the batch mean of s is below b, λ grows, and with it the weight of
s; while it is above, λ falls, down to 0, where the term no longer costs anything.
"""

from __future__ import annotations

from align.config.rewards import ConstraintConfig


class Multiplier:
    """λ of one constraint.

    Args:
        config: bound, step size, first value and ceiling.
    """

    def __init__(self, config: ConstraintConfig) -> None:
        self.bound = config.at_least
        self.value = config.initial
        self._lr = config.lr
        self._max = config.max

    def term(self, score: float) -> float:
        """λ · (score − bound): what the constraint adds to a sample's reward."""
        return self.value * (score - self.bound)

    def update(self, mean: float) -> None:
        """λ ← min(max(0, λ + lr · (bound − mean)), max).

        Args:
            mean: of the term over the batch just rewarded.
        """
        self.value = min(max(0.0, self.value + self._lr * (self.bound - mean)), self._max)
