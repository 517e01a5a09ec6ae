"""How well the training devices are used: tokens a second, and the share of their peak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLOPS_A_WEIGHT = 6
"""Of one token: two forward, four backward."""


@dataclass(frozen=True, slots=True)
class Performance:
    """Of one run's updates."""

    devices: int
    """Training ranks."""
    active: int | None
    """Weights that one token uses; None where the planner does not know the model."""
    peak_flops: float
    """FLOP/s of one device."""

    def metrics(self, step: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, float]:
        """``perf/tokens_per_second`` of one device and ``perf/mfu``; empty for a step without an update.

        Args:
            step: its metrics; of them ``train/fed_tokens`` is read: a prompt that completions share counts
                once.
            seconds: by stage; that of ``update`` is read.
        """
        tokens, spent = step.get("train/fed_tokens", 0.0), seconds.get("update", 0.0)
        if not tokens or not spent:
            return {}
        speed = tokens / spent / self.devices
        found = {"perf/tokens_per_second": speed}
        if self.active is not None:
            found["perf/mfu"] = FLOPS_A_WEIGHT * self.active * speed / self.peak_flops
        return found
