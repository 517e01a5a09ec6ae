"""Group relative policy optimisation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from align.config.base import Section


class AdvantageConfig(Section):
    """How a group's rewards become advantages."""

    supervision: Literal["outcome", "process"] = "outcome"
    """One reward per completion, or one per step of it, from a reward that gives ``steps`` (DeepSeekMath
    §4.1.3)."""
    baseline: Literal["group_mean", "leave_one_out"] = "group_mean"
    """What is subtracted: the group's mean (paper), or the mean of the other members."""
    scale: Literal["std", "none"] = "std"
    """Divide by the group's standard deviation (paper), or not (Dr. GRPO)."""
    ddof: Literal[0, 1] = 0
    """0: population standard deviation; 1: sample standard deviation."""
    eps: float = Field(1e-4, ge=0)
    """Added to the standard deviation."""

    @model_validator(mode="after")
    def _coherent(self) -> AdvantageConfig:
        if self.supervision == "process" and self.baseline == "leave_one_out":
            raise ValueError(
                "process supervision is relative to the mean of all steps of the group: "
                "leave `baseline` at group_mean, or set `supervision: outcome`"
            )
        return self


class ImportanceConfig(Section):
    """Correction for the gap between sampling and training log-probabilities."""

    level: Literal["token", "sequence", "off"] = "token"
    """Truncated importance sampling per token, per sequence, or none. Where a completion has one ratio
    (``policy_loss: gspo``, ``level: sequence``) not per token."""
    cap: float = Field(2.0, gt=0)
    """Weights are cut off at this value."""
    reject_above: float | None = Field(None, gt=1)
    """Leave a token (level token) or a completion (level sequence) out of the loss above this weight."""
    reject_below: float | None = Field(None, gt=0, lt=1)
    """The same below this weight."""

    @model_validator(mode="after")
    def _coherent(self) -> ImportanceConfig:
        if self.level == "off" and (self.reject_above is not None or self.reject_below is not None):
            raise ValueError(
                "rejection needs weights: set `level` to token or sequence, or leave reject_above and "
                "reject_below out"
            )
        if self.reject_above is not None and self.reject_above < self.cap:
            raise ValueError(
                f"no weight reaches the cap ({self.cap:g}) when all above {self.reject_above:g} are "
                "rejected: raise reject_above or lower the cap to it"
            )
        return self


class DynamicSamplingConfig(Section):
    """Groups without signal are replaced by further prompts (DAPO §3.2)."""

    max_rounds: int = Field(4, ge=2)
    """Rollout rounds in one step, the first included; afterwards the step trains on what it has."""


_PUBLISHED_BOUNDS = {
    "gspo": "its paper: 3e-4 and 4e-4",
    "gspo_token": "the paper of GSPO: 3e-4 and 4e-4",
    "cispo": "its paper: no lower bound, which is clip_low 1, and a clip_high found by tuning",
}


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
    schedule: Literal["sync", "async"] = "sync"
    """``async`` samples step t + 1 while the policy learns from step t: completions are one update old."""
    epochs: int = Field(1, ge=1)
    """μ: passes over each step's batch."""
    minibatches: int = Field(1, ge=1)
    """Optimiser steps per pass; each gets whole groups."""
    beta: float = Field(0.04, ge=0)
    """Weight of the KL term; at 0 no reference model is kept."""
    kl: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of the KL to the reference; k3 is the paper's."""
    policy_loss: Literal["clip", "gspo", "gspo_token", "cispo"] = "clip"
    """Clipped ratios (GRPO), their geometric mean over the completion (GSPO), or clipped weights on the
    log-probability (CISPO). They differ only with several updates per step."""
    clip_low: float = Field(0.2, gt=0, le=1)
    """ε below: the ratio is clipped at 1 − clip_low; 1 sets no lower bound."""
    clip_high: float = Field(0.2, gt=0)
    """ε above: the ratio is clipped at 1 + clip_high (larger: DAPO's clip-higher)."""
    level: Literal["token", "sequence"] = "token"
    """Of ``policy_loss: clip``: ratios per token (DeepSeekMath eq. 3) or of whole completions, as
    DeepSeek-V2 eq. 32 prints it."""
    reduction: Literal["sequence_mean", "token_mean", "max_length"] = "sequence_mean"
    """Token weights: 1/(N·|o|) (paper), 1/Σ|o| (DAPO) or 1/(N·max_new_tokens) (Dr. GRPO)."""
    advantage: AdvantageConfig = AdvantageConfig()
    """Rewards to advantages."""
    importance: ImportanceConfig = ImportanceConfig()
    """Sampling–training correction."""
    dynamic_sampling: DynamicSamplingConfig | None = None
    """Draw further prompts for groups whose advantages are all zero; default: keep such groups."""
    replay: Literal["off", "compare", "rollout", "trainer"] = "off"
    """MoE policies: the update sends each token to the experts that the rollout engine chose for it
    (rollout), or that the trainer's own pass before the step's first update chose (trainer; with one update
    per step, its own). ``compare`` replays nothing and logs how often engine and trainer chose the same."""
    micro_batch_tokens: int | None = Field(None, ge=1)
    """Tokens in one forward pass: memory against speed, never the result; default: 2,048 on a CPU, where
    more are no faster, 8,192 on a GPU."""

    @property
    def engine_routing(self) -> bool:
        """Whether completions say which experts the engine sent their tokens to."""
        return self.replay in ("compare", "rollout")

    def pass_tokens(self, device: str) -> int:
        """``micro_batch_tokens``, or what serves ``device`` (``cpu`` or ``cuda``)."""
        return self.micro_batch_tokens or (2048 if device == "cpu" else 8192)

    @model_validator(mode="after")
    def _whole_groups(self) -> GrpoConfig:
        if self.prompts_per_step % self.minibatches:
            raise ValueError(
                f"minibatches ({self.minibatches}) must divide prompts_per_step ({self.prompts_per_step})"
            )
        return self

    @model_validator(mode="after")
    def _coherent_loss(self) -> GrpoConfig:
        whole = "level: sequence" if self.level == "sequence" else f"policy_loss: {self.policy_loss}"
        if self.level == "sequence" and self.policy_loss != "clip":
            raise ValueError(
                f"level: sequence is a form of policy_loss: clip; {self.policy_loss} has a ratio of its own: "
                "leave `level` out"
            )
        one_ratio = self.level == "sequence" or self.policy_loss == "gspo"
        if one_ratio and self.reduction != "sequence_mean":
            raise ValueError(
                f"{whole} has one loss per completion, which reduction: {self.reduction} would weigh by "
                "its length: use reduction: sequence_mean"
            )
        if one_ratio and self.importance.level == "token":
            raise ValueError(
                f"{whole} has one loss per completion, which weights of tokens do not correct: set "
                "importance.level to sequence, or to off"
            )
        if one_ratio and self.advantage.supervision == "process":
            raise ValueError(
                f"{whole} has one advantage per completion, process supervision one per token: "
                "use policy_loss clip, gspo_token or cispo at level: token"
            )
        if self.schedule == "async" and self.importance.level == "off":
            raise ValueError(
                "schedule: async trains on completions of the policy before the last update, which only "
                "importance weights correct: set importance.level to token or sequence"
            )
        if self.policy_loss != "clip" and not {"clip_low", "clip_high"} <= self.model_fields_set:
            raise ValueError(
                f"the default clip bounds are those of policy_loss: clip; for {self.policy_loss} set both "
                f"clip_low and clip_high ({_PUBLISHED_BOUNDS[self.policy_loss]})"
            )
        return self
