"""Group relative policy optimisation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from align.config.base import Section


class AdvantageConfig(Section):
    """How a group's rewards become advantages."""

    baseline: Literal["group_mean", "leave_one_out"] = "group_mean"
    """What is subtracted: the group's mean (paper), or the mean of the other members."""
    scale: Literal["std", "none"] = "std"
    """Divide by the group's standard deviation (paper), or not (Dr. GRPO)."""
    ddof: Literal[0, 1] = 0
    """0: population standard deviation; 1: sample standard deviation."""
    eps: float = Field(1e-4, ge=0)
    """Added to the standard deviation."""


class ImportanceConfig(Section):
    """Correction for the gap between sampling and training log-probabilities."""

    level: Literal["token", "sequence", "off"] = "token"
    """Truncated importance sampling per token, per sequence, or none."""
    cap: float = Field(2.0, gt=0)
    """Weights are cut off at this value."""


class GrpoConfig(Section):
    """The algorithm. Defaults follow DeepSeekMath §4.2, which DeepSeek-V2 builds on."""

    steps: int = Field(100, ge=1)
    """Rollout-and-update rounds."""
    prompts_per_step: int = Field(16, ge=1)
    """Different prompts per step."""
    group_size: int = Field(8, ge=2)
    """G, completions per prompt. At least 2: advantages are relative to the group."""
    max_prompt_tokens: int = Field(1024, ge=1)
    """A longer prompt is an error, or is dropped with ``overlong_prompts: drop``."""
    overlong_prompts: Literal["error", "drop"] = "error"
    """What happens to a prompt over the limit."""
    epochs: int = Field(1, ge=1)
    """μ: passes over each step's batch."""
    minibatches: int = Field(1, ge=1)
    """Optimiser steps per pass; each gets whole groups."""
    beta: float = Field(0.04, ge=0)
    """Weight of the KL term; at 0 no reference model is kept."""
    kl: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of the KL to the reference; k3 is the paper's."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """ε below: the ratio is clipped at 1 − clip_low."""
    clip_high: float = Field(0.2, gt=0)
    """ε above: the ratio is clipped at 1 + clip_high (larger: DAPO's clip-higher)."""
    level: Literal["token", "sequence"] = "token"
    """Ratios per token (DeepSeekMath eq. 3) or per sequence, as DeepSeek-V2 eq. 32 prints it."""
    reduction: Literal["sequence_mean", "token_mean", "max_length"] = "sequence_mean"
    """Token weights: 1/(N·|o|) (paper), 1/Σ|o| (DAPO) or 1/(N·max_new_tokens) (Dr. GRPO)."""
    advantage: AdvantageConfig = AdvantageConfig()
    """Rewards to advantages."""
    importance: ImportanceConfig = ImportanceConfig()
    """Sampling–training correction."""
    micro_batch_tokens: int = Field(8192, ge=1)
    """Padded tokens in one forward pass: memory against speed, never the result."""

    @model_validator(mode="after")
    def _whole_groups(self) -> GrpoConfig:
        if self.prompts_per_step % self.minibatches:
            raise ValueError(
                f"minibatches ({self.minibatches}) must divide prompts_per_step ({self.prompts_per_step})"
            )
        return self
