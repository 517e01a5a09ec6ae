"""The optimiser and its learning-rate schedule."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from align.config.base import Section


class OptimConfig(Section):
    """AdamW on fp32 master weights."""

    lr: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine", "step_decay"] = "constant"
    """``step_decay`` multiplies by ``decay_factor`` at each of ``decay_at`` (DeepSeek-V2 pre-training)."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up from 0 to ``lr``."""
    min_lr_ratio: float = Field(0.0, ge=0, le=1)
    """Floor of the cosine and linear schedules as a share of ``lr``."""
    decay_at: list[float] = [0.6, 0.9]
    """Shares of the whole run at which ``step_decay`` drops."""
    decay_factor: float = Field(0.316, gt=0, le=1)
    """Factor of each drop."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW moment decay rates."""
    eps: float = Field(1e-8, gt=0)
    """AdamW denominator term."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay on matrices; norms and biases get none."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest global gradient norm."""

    @model_validator(mode="after")
    def _ascending(self) -> OptimConfig:
        shares = self.decay_at
        if sorted(shares) != shares or any(not 0 < share < 1 for share in shares):
            raise ValueError("decay_at must be ascending shares strictly between 0 and 1")
        return self
