"""Do trainer and engine say the same of a probe prompt?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from align.config.rollout import SyncConfig
from align.errors import SyncError

TOLERANCE = {"bfloat16": 0.3, "float32": 1e-3}
"""Mean |Δ log-probability|: well above what exact weights were measured to give (in bf16 0.033 for a
135M dense model and 0.04, at most 0.12 in 80 steps, for a tiny MoE on prompts it never learnt to
write; 4e-6 in fp32), a fraction of what stale weights give (4.6 for an old output head)."""


def compare_probe(
    trainer: Sequence[float], engine: Sequence[float], config: SyncConfig, dtype: str
) -> tuple[float, float]:
    """Mean and largest |Δ| of the probe's token log-probabilities.

    Args:
        trainer: nats, one per probe token but the first.
        engine: the same from the rollout engine.
        config: ``tolerance`` overrides the default of the type.
        dtype: the less precise of the two sides' types.

    Raises:
        SyncError: the mean difference is beyond the tolerance, or not a number.
    """
    differences = [abs(a - b) for a, b in zip(trainer, engine, strict=True)]
    mean, largest = math.fsum(differences) / len(differences), max(differences)
    tolerance = config.tolerance or TOLERANCE[dtype]
    if not mean <= tolerance:  # also true for NaN
        raise SyncError(
            f"trainer and engine disagree after a weight push: mean |Δ logprob| of the probe is "
            f"{mean:.4g} (largest {largest:.4g}), tolerance {tolerance:g}",
            key="sync.tolerance",
            remedy="the engine holds stale or wrong weights; restart from the last checkpoint with --resume",
        )
    return mean, largest
