"""Is everything that an update is made of a finite number?

Found before the optimiser, so that one bad sample cannot end a policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from align.algo.objective import MicroBatch
from align.errors import NonFiniteError
from align.types import Group, SampleScore

LARGEST = torch.finfo(torch.float32).max

Advantages = Sequence[float | list[float] | None]
"""One per completion, in (prompt, sample) order, or one per token of it; None: left out."""


def check_advantages(
    groups: Sequence[Group], scores: Sequence[SampleScore], advantages: Advantages, step: int
) -> None:
    """
    Args:
        groups: of a step.
        scores: of their completions.
        advantages: of their completions.
        step: for the message.

    Raises:
        NonFiniteError: an advantage is no number that the update can compute with, in fp32. The message
            names the sample and the term that gave it the largest reward.
    """
    known = {(score.prompt_id, score.sample_index): score for score in scores}
    completions = [each for group in groups for each in group.completions]
    for completion, advantage in zip(completions, advantages, strict=True):
        values = advantage if isinstance(advantage, list) else [] if advantage is None else [advantage]
        bad = next((each for each in values if not abs(each) <= LARGEST), None)  # also true for NaN
        if bad is None:
            continue
        score = known[completion.prompt_id, completion.sample_index]
        given = {name: each.value for name, each in score.terms.items() if each.value is not None}
        worst = max(given, key=lambda name: abs(given[name] or 0.0), default=None)
        said = f"; its largest reward is {given[worst]:g}, of {worst!r}" if worst else ""
        raise NonFiniteError(
            f"step {step}: the advantage of sample {completion.sample_index} of prompt "
            f"{completion.prompt_id} is {bad:g}, which fp32 does not hold{said}",
            key=f"rewards.terms.{worst}" if worst else "rewards",
            remedy="mend the reward, or bound it with `clip`; then continue with --resume",
        )


def unusable_rows(batch: MicroBatch) -> dict[int, str]:
    """Row of a micro-batch → what of it is not finite; empty where everything is.

    Args:
        batch: B completions; only places inside the mask count.
    """
    columns: dict[str, Tensor | None] = {
        "log-probability under the policy": batch.logprobs_BT,
        "log-probability of the rollout engine": batch.rollout_logprobs_BT,
        "log-probability before the update": batch.old_logprobs_BT,
        "log-probability under the reference": batch.ref_logprobs_BT,
        "advantage": batch.token_advantages_BT,
    }
    found: dict[int, str] = {}
    for what, values in columns.items():
        if values is not None:
            bad = (~torch.isfinite(values.detach()) & batch.mask_BT).any(-1)
            found |= {int(row): what for row in bad.nonzero()[:, 0]}
    bad = ~torch.isfinite(batch.advantages_B)
    return found | {int(row): "advantage" for row in bad.nonzero()[:, 0]}


def check_loss(loss: float, batch: MicroBatch, names: Sequence[str], step: int) -> None:
    """
    Args:
        loss: of the micro-batch.
        batch: what it was computed from.
        names: of its rows.
        step: for the message.

    Raises:
        NonFiniteError: the loss is not finite. The message names the first row that explains it.
    """
    if math.isfinite(loss):
        return
    rows = unusable_rows(batch)
    reason = "although all that it is computed from is finite"
    if rows:
        row, what = min(rows.items())
        reason = f"as the {what} of a completion of prompt {names[row]} is not finite"
    raise NonFiniteError(
        f"step {step}: the loss is {loss}, {reason}",
        key="optim.lr",
        remedy="the policy is as it was before this update; lower optim.lr, or raise it less steeply "
        "(optim.warmup_steps), and continue with --resume",
    )
