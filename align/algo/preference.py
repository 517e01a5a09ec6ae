"""What a reward model learns from, and how well it has learnt: losses and held-out measures.

Letters in names: N rows; a pair is a chosen and a rejected answer to one prompt. The pairwise loss
itself, −log σ(s_chosen − s_rejected − margin) + center · (s_chosen + s_rejected)², is TRL's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Z95 = 1.959964
"""Half width of a 95% interval in standard deviations."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def pointwise_loss(scores_N: Tensor, targets_N: Tensor, kind: Literal["regression", "binary"]) -> Tensor:
    """Mean squared error, or cross-entropy of σ(score) against targets that are 0 or 1; fp32 scalar."""
    if kind == "regression":
        return F.mse_loss(scores_N.float(), targets_N.float())
    return F.binary_cross_entropy_with_logits(scores_N.float(), targets_N.float())


class Share(NamedTuple):
    """A share of rows with its 95% confidence interval."""

    value: float
    low: float
    high: float
    rows: int


def share(hits_N: Tensor, groups_N: Tensor) -> Share:
    """Mean of ``hits`` with a Wilson interval that allows for rows of one prompt being alike.

    The number of rows is replaced by the effective one, p(1 − p) / V, where V is the variance of the
    mean with prompts as clusters: Σ_g (Σ_{i in g} (hit_i − p))² / N². It is at most N, and the number
    of prompts when all rows agree.

    Args:
        hits_N: values in 0 … 1; ties between two answers count 0.5.
        groups_N: int64, equal for rows of the same prompt.

    Raises:
        ValueError: no rows.
    """
    count = len(hits_N)
    if count == 0:
        raise ValueError("no rows to take a share of")
    hits_N = hits_N.double()
    p = hits_N.mean().item()
    _, index_N = groups_N.unique(return_inverse=True)
    clusters = int(index_N.max()) + 1
    sums = torch.zeros(clusters, dtype=torch.double).index_add(0, index_N, hits_N - p)
    variance = sums.square().sum().item() / count**2
    effective = min(count, p * (1 - p) / variance) if variance > 0 else clusters
    return Share(p, *wilson(p, effective), count)


def wilson(p: float, count: float) -> tuple[float, float]:
    """95% score interval of a share ``p`` of ``count`` independent rows (Wilson 1927)."""
    centre = p + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(p * (1 - p) / count + Z95**2 / (4 * count**2))
    whole = 1 + Z95**2 / count
    return max(0.0, (centre - spread) / whole), min(1.0, (centre + spread) / whole)


def wins(first_N: Tensor, second_N: Tensor) -> Tensor:
    """1 where the first is larger, 0.5 where both are equal, else 0; fp32 [N]."""
    return ((first_N > second_N).float() + (first_N >= second_N).float()) / 2


class Bin(NamedTuple):
    """Rows whose predicted probability lies in one interval."""

    low: float
    high: float
    rows: int
    predicted: float
    """Their mean predicted probability."""
    observed: float
    """The share that came true."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How probabilities that a model states compare with what happens."""

    bins: tuple[Bin, ...]
    """Those that have rows."""
    ece: float
    """Expected calibration error: mean |observed − predicted| over bins, weighted by their rows."""


def reliability(predicted_N: Tensor, hits_N: Tensor, *, low: float = 0.0, bins: int = 10) -> Reliability:
    """Sort rows into ``bins`` intervals of equal width between ``low`` and 1.

    Args:
        predicted_N: probabilities, ``low`` … 1.
        hits_N: 0 … 1, what happened.
        low: 0.5 where the prediction is the likelier of two outcomes.
        bins: number of intervals; the upper border of each belongs to the next, but for the last.
    """
    width = (1 - low) / bins
    place_N = ((predicted_N.double() - low) / width).long().clamp(0, bins - 1)
    found = []
    for index in range(bins):
        inside_N = place_N == index
        count = int(inside_N.sum())
        if count:
            means = (predicted_N[inside_N].double().mean().item(), hits_N[inside_N].double().mean().item())
            found.append(Bin(low + index * width, low + (index + 1) * width, count, *means))
    ece = sum(each.rows * abs(each.observed - each.predicted) for each in found) / len(predicted_N)
    return Reliability(tuple(found), ece)


def pair_reliability(chosen_N: Tensor, rejected_N: Tensor) -> Reliability:
    """Of the Bradley-Terry probability σ(|s_chosen − s_rejected|) that the preferred answer is better."""
    difference_N = (chosen_N - rejected_N).double()
    return reliability(difference_N.abs().sigmoid(), wins(chosen_N, rejected_N), low=0.5)


def correlation(one_N: Tensor, other_N: Tensor) -> float:
    """Pearson's; 0 where either does not vary."""
    one_N, other_N = one_N.double() - one_N.double().mean(), other_N.double() - other_N.double().mean()
    scale = (one_N.norm() * other_N.norm()).item()
    return (one_N @ other_N).item() / scale if scale > 0 else 0.0


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How far longer answers win, in the data and in the model's view."""

    correlation: float
    """Of score and length over all answers."""
    difference_correlation: float
    """Of the score difference and the length difference inside pairs: free of the prompt."""
    longer_chosen: float
    """Share of pairs of unequal length whose longer answer is the chosen one: what a model that only
    counts tokens would get right."""
    longer_preferred: float
    """Share of the same pairs whose longer answer has the higher score."""
    equal_length: Share | None
    """Accuracy on pairs whose lengths differ by at most a tenth of the longer; None without such pairs."""


def length_bias(
    chosen_N: Tensor, rejected_N: Tensor, lengths_N2: Tensor, groups_N: Tensor, *, tolerance: float = 0.1
) -> LengthBias:
    """Measure it on pairs.

    Args:
        chosen_N, rejected_N: scores.
        lengths_N2: tokens of the chosen and of the rejected answer.
        groups_N: int64, equal for pairs of the same prompt.
        tolerance: largest difference, as a share of the longer answer, that counts as equal length.
    """
    gap_N = lengths_N2[:, 0] - lengths_N2[:, 1]
    unequal_N = gap_N != 0
    near_N = gap_N.abs() <= tolerance * lengths_N2.amax(1)
    won_N = wins(chosen_N, rejected_N)
    longer_won_N = torch.where(gap_N > 0, won_N, 1 - won_N)[unequal_N]
    scores_M = torch.cat([chosen_N, rejected_N])
    return LengthBias(
        correlation=correlation(scores_M, lengths_N2.T.flatten()),
        difference_correlation=correlation(chosen_N - rejected_N, gap_N),
        longer_chosen=(gap_N[unequal_N] > 0).float().mean().item() if unequal_N.any() else 0.5,
        longer_preferred=longer_won_N.mean().item() if unequal_N.any() else 0.5,
        equal_length=share(won_N[near_N], groups_N[near_N]) if near_N.any() else None,
    )


def concordance(scores_N: Tensor, targets_N: Tensor, groups_N: Tensor) -> Share | None:
    """Share of pairs of rows of one prompt, with different targets, that the scores put in order.

    Returns:
        With an interval whose clusters are the prompts; None where no prompt has two such rows.
    """
    hits, members = [], []
    for group in groups_N.unique():
        scores, targets = scores_N[groups_N == group], targets_N[groups_N == group]
        first, second = torch.nonzero(targets[:, None] > targets[None, :], as_tuple=True)
        hits.append(wins(scores[first], scores[second]))
        members.append(group.expand(len(first)))
    joined = torch.cat(hits)
    return share(joined, torch.cat(members)) if len(joined) else None


def area_under_curve(scores_N: Tensor, targets_N: Tensor) -> float:
    """Probability that a row with target 1 scores above one with target 0 (ROC AUC); 0.5 without both."""
    positive, negative = scores_N[targets_N > 0.5], scores_N[targets_N <= 0.5].sort().values
    if not (len(positive) and len(negative)):
        return 0.5
    below = torch.searchsorted(negative, positive.contiguous())
    up_to = torch.searchsorted(negative, positive.contiguous(), right=True)
    return ((below + up_to).double().mean() / (2 * len(negative))).item()


def distribution(scores: Sequence[float]) -> dict[str, object]:
    """What a reward bank needs to put scores on a common scale.

    Returns:
        ``mean``, ``std`` (population), ``quantiles`` (share → score, linear between ranks) and ``count``.
    """
    values = torch.tensor(scores, dtype=torch.double)
    quantiles = torch.quantile(values, torch.tensor(QUANTILES, dtype=torch.double))
    levels = {f"{level:g}": score for level, score in zip(QUANTILES, quantiles.tolist(), strict=True)}
    return {
        "mean": values.mean().item(),
        "std": values.std(correction=0).item(),
        "quantiles": levels,
        "count": len(scores),
    }
