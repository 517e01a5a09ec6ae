"""Do trainer and engine say the same of a probe prompt?

Checksums show that the bytes arrived; the probe shows what the engine made of them. How far apart two exact
sides are depends on policy and kernels, so it is measured at the first push. The median of the differences is
judged: in a MoE a token may be sent to other experts on either side, and a few such tokens rule any mean.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from align.config.rollout import SyncConfig
from align.errors import SyncError

CEILING = {"bfloat16": 0.3, "float32": 1e-3}
"""Largest mean |Δ log-probability|. Exact weights gave in bf16 0.033 for a 135M dense model and 0.04, at most
0.12 in 80 steps, for a tiny MoE on prompts it never learnt to write; 4e-6 in fp32. An old output head gave
4.6."""
TIMES_FIRST = 4.0
"""The median may be so many times that of the first push. Exact weights came to 1.9 times in 52 steps that
moved the policy by 4 nats a token."""
FLOOR = {"bfloat16": 0.1, "float32": 1e-4}
"""A median below is no error. An update that moves a policy far from its text raises it: 0.06 was seen."""
FLOOR_DECODING = {"bfloat16": 0.1, "float32": 1e-4}
"""The same between decoding and prefill, of which there are fewer tokens; exact weights gave up to 0.06."""


class Agreement:
    """Holds the engine's answers against the trainer's, push after push."""

    def __init__(self, config: SyncConfig, dtype: str) -> None:
        """Args:
        config: ``tolerance`` overrides all others for the mean.
        dtype: the less precise of the two sides' types.
        """
        self.config, self.dtype = config, dtype
        self._first: float | None = None

    def check(self, trainer: Sequence[float], engine: Sequence[float]) -> tuple[float, float]:
        """Mean and largest |Δ| of the probe's token log-probabilities.

        Args:
            trainer: nats, one per probe token but the first.
            engine: the same from the rollout engine, which reads the probe at once (prefill).

        Raises:
            SyncError: mean or median of the differences are beyond their tolerance, or not numbers.
        """
        gaps = _gaps(trainer, engine)
        mean, median = math.fsum(gaps) / len(gaps), statistics.median(gaps)
        self._judge("mean", mean, self.config.tolerance or CEILING[self.dtype])
        if self._first is None:
            self._first = median
        elif not self.config.tolerance:
            self._judge("median", median, self.tolerance)
        return mean, max(gaps)

    def check_decoding(self, decoded: Sequence[float], prefilled: Sequence[float]) -> None:
        """The engine against itself: MLA decodes with weights that prefill does not use.

        Args:
            decoded: log-probabilities as the engine gave them token by token; empty if nothing differs.
            prefilled: the same, reading all tokens at once.

        Raises:
            SyncError: the median difference is beyond the tolerance, or some is not a number.
        """
        if decoded:
            tolerance = self.config.tolerance or max(FLOOR_DECODING[self.dtype], self.tolerance)
            gaps = _gaps(decoded, prefilled)
            median = math.nan if any(map(math.isnan, gaps)) else statistics.median(gaps)
            self._judge("median", median, tolerance, between="decoding and prefill of the engine")

    @property
    def tolerance(self) -> float:
        """Largest median |Δ| after the first push."""
        return max(FLOOR[self.dtype], TIMES_FIRST * (self._first or 0.0))

    def _judge(self, kind: str, found: float, tolerance: float, between: str = "trainer and engine") -> None:
        if not math.isfinite(found):
            raise SyncError(
                f"{between} give log-probabilities that are no finite numbers after a weight push",
                key="optim.lr",
                remedy="the policy has diverged: go on from the last checkpoint with --resume, with a lower "
                "optim.lr",
            )
        if found > tolerance:
            raise SyncError(
                f"{between} disagree after a weight push: {kind} |Δ logprob| of the probe is {found:.4g}, "
                f"tolerance {tolerance:.4g}",
                key="sync.tolerance",
                remedy="the engine holds stale or wrong weights; restart from the last checkpoint with "
                "--resume",
            )


def _gaps(left: Sequence[float], right: Sequence[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(left, right, strict=True)]
