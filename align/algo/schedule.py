"""Learning-rate schedules as a pure function of the step."""

from __future__ import annotations

import math

from align.config.optim import OptimConfig


def lr_factor(step: int, total_steps: int, optim: OptimConfig) -> float:
    """The factor on ``optim.lr`` for one update.

    Warm-up raises the factor by 1/``warmup_steps`` each update, so the first update already moves.
    Afterwards ``constant`` stays at 1; ``linear`` and ``cosine`` fall from 1 towards
    ``min_lr_ratio``, which they reach at ``total_steps``; ``step_decay`` multiplies by
    ``decay_factor`` at each share of the run in ``decay_at`` (DeepSeek-V2 §3.1.2).

    Args:
        step: updates done before this one, 0-based.
        total_steps: updates of the whole run.
        optim: schedule and its settings.

    Raises:
        ValueError: ``step`` is negative or ``total_steps`` is not positive.
    """
    if step < 0 or total_steps < 1:
        raise ValueError(f"no schedule at step {step} of {total_steps}")
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    if optim.schedule == "constant":
        return 1.0
    if optim.schedule == "step_decay":
        passed = sum(step / total_steps >= share for share in optim.decay_at)
        return optim.decay_factor**passed
    progress = min(1.0, (step - optim.warmup_steps) / max(1, total_steps - optim.warmup_steps))
    fall = progress if optim.schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return 1.0 - (1.0 - optim.min_lr_ratio) * fall
