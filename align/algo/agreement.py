"""How far trainer and rollout engine agree on the tokens of a step.

Quantiles do not add up, so every micro-batch hands over its values and the metrics are taken once
over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Agreement(NamedTuple):
    """Of one micro-batch, on the CPU."""

    gaps_N: Tensor
    """fp32, log π_old − log π_rollout of each real token, nats."""
    ratios_M: Tensor
    """fp32, importance weights before cap and rejection, per token or per sequence."""


def agreement_metrics(parts: Sequence[Agreement]) -> dict[str, float]:
    """Metrics over all values of all micro-batches.

    - ``logprob_mean``, ``_p99``, ``_max``: of |log π_old − log π_rollout|, nats.
    - ``kl``: KL(rollout ‖ trainer) per token by the k3 estimator, exp(d) − 1 − d with
      d = log π_old − log π_rollout; never negative, unbiased as the engine drew the tokens.
    - ``weight_p01``, ``_p50``, ``_p99``: of the importance weights before cap and rejection.

    Raises:
        ValueError: there is no token.
    """
    gaps = torch.cat([part.gaps_N for part in parts])
    ratios = torch.cat([part.ratios_M for part in parts])
    sizes = gaps.abs()
    return {
        "mismatch/logprob_mean": float(sizes.mean(dtype=torch.float64)),
        "mismatch/logprob_p99": quantile(sizes, 0.99),
        "mismatch/logprob_max": float(sizes.max()),
        "mismatch/kl": float((gaps.expm1() - gaps).mean(dtype=torch.float64)),
        "mismatch/weight_p01": quantile(ratios, 0.01),
        "mismatch/weight_p50": quantile(ratios, 0.5),
        "mismatch/weight_p99": quantile(ratios, 0.99),
    }


def quantile(values_N: Tensor, share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed (nearest rank).

    ``torch.quantile`` refuses more than 16M values; a step can have more tokens.

    Raises:
        ValueError: there is no value.
    """
    count = len(values_N)
    if not count:
        raise ValueError("no values to take a quantile of")
    return float(values_N.kthvalue(max(1, math.ceil(share * count))).values)
