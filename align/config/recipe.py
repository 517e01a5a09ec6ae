"""Whole recipes, one per command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from align.config.base import Section, refusal
from align.config.data import DataConfig, EvalConfig, PreferenceDataConfig
from align.config.grpo import GrpoConfig
from align.config.optim import OptimConfig
from align.config.policy import PolicyConfig
from align.config.reward_model import RewardModelConfig
from align.config.rewards import RewardsConfig
from align.config.rollout import RolloutConfig, SyncConfig
from align.config.run import CheckpointConfig, ClusterConfig, ReportConfig
from align.config.sft import SftConfig


class RunRecipe(Section):
    """What every run has: a name, a seed, a place and a policy."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and, unless ``run_dir`` says otherwise, of its directory under runs/."""
    seed: int = Field(0, ge=0)
    """Every random choice derives from it."""
    run_dir: str | None = None
    """Run directory; default runs/<name>."""
    policy: PolicyConfig
    """The model."""
    cluster: ClusterConfig = ClusterConfig()
    """Machines and processes."""

    @property
    def directory(self) -> Path:
        """Where the run writes."""
        return Path(self.run_dir or f"runs/{self.name}")


class SftOptimConfig(OptimConfig):
    """The same optimiser with the defaults of supervised fine-tuning (paper §4.1; the schedule is
    DeepSeek-Coder-V2's, as the report names none)."""

    lr: float = Field(5e-6, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine", "step_decay"] = "cosine"
    """``step_decay`` multiplies by ``decay_factor`` at each of ``decay_at`` (DeepSeek-V2 pre-training)."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up from 0 to ``lr``."""


class SftRecipe(RunRecipe):
    """``align sft``: supervised fine-tuning."""

    kind: Literal["sft"]
    data: DataConfig
    """Conversations: a ``messages`` column, or ``prompt`` and ``completion``."""
    sft: SftConfig = SftConfig()
    """Epochs, batch, packing."""
    optim: SftOptimConfig = SftOptimConfig()
    """Optimiser and schedule."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Saving."""
    report: ReportConfig = ReportConfig()
    """Reporting."""


class RewardModelOptimConfig(OptimConfig):
    """The same optimiser with defaults for reward models; the paper names none."""

    lr: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine", "step_decay"] = "cosine"
    """``step_decay`` multiplies by ``decay_factor`` at each of ``decay_at`` (DeepSeek-V2 pre-training)."""
    warmup_steps: int = Field(10, ge=0)
    """Steps of linear warm-up from 0 to ``lr``."""


class RewardModelRecipe(RunRecipe):
    """``align rm``: reward-model training."""

    kind: Literal["rm"]
    data: PreferenceDataConfig
    """Pairs: ``chosen`` and ``rejected``, each an answer to ``prompt`` or a whole conversation; or
    conversations with a ``score``; or scored answers to be paired (``pairs_by``)."""
    rm: RewardModelConfig = RewardModelConfig()
    """Loss, epochs, batch, split."""
    optim: RewardModelOptimConfig = RewardModelOptimConfig()
    """Optimiser and schedule."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Saving."""
    report: ReportConfig = ReportConfig()
    """Reporting."""

    @model_validator(mode="after")
    def _pairs_by_of_pairs(self) -> RewardModelRecipe:
        made = [name for name, part in self.data.parts.items() if part.pairs_by is not None]
        if made and self.rm.loss != "bradley_terry":
            raise ValueError(
                f"data.parts.{made[0]}.pairs_by belongs to rm.loss: bradley_terry, not to {self.rm.loss}"
            )
        return self


class GrpoRecipe(RunRecipe):
    """``align grpo``: reinforcement learning from several rewards."""

    kind: Literal["grpo"]
    data: DataConfig
    """Prompts: a ``prompt`` column (text or messages) and whatever columns the rewards read."""
    grpo: GrpoConfig = GrpoConfig()
    """The algorithm."""
    optim: OptimConfig = OptimConfig()
    """Optimiser and schedule."""
    rollout: RolloutConfig = RolloutConfig()
    """Sampling."""
    sync: SyncConfig = SyncConfig()
    """Weight push."""
    rewards: RewardsConfig
    """Reward terms."""
    eval: EvalConfig = EvalConfig()
    """Held-out measurements."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Saving."""
    report: ReportConfig = ReportConfig()
    """Reporting."""

    def scheduled(self, device: str) -> bool:
        """Whether what a stage does not use leaves the device (``cpu`` or ``cuda``) during it."""
        if self.cluster.residency == "auto":
            return device == "cuda" and self.grpo.schedule == "sync"
        return self.cluster.residency == "scheduled"

    @model_validator(mode="after")
    def _one_trainer(self) -> GrpoRecipe:
        if self.cluster.processes > 1:
            raise refusal(
                f"align grpo has one trainer and cannot spread it over {self.cluster.processes} processes",
                key="cluster.processes",
                remedy="set it to 1; to save memory train adapters with policy.lora",
            )
        return self

    @model_validator(mode="after")
    def _no_dropout(self) -> GrpoRecipe:
        if self.policy.lora and self.policy.lora.dropout:
            raise refusal(
                "with dropout the trainer's log-probabilities are random, and no longer those of the engine "
                "that samples",
                key="policy.lora.dropout",
                remedy="set it to 0 for align grpo",
            )
        return self

    @model_validator(mode="after")
    def _async_needs_both(self) -> GrpoRecipe:
        if self.grpo.schedule == "async" and self.cluster.residency == "scheduled":
            raise ValueError(
                "grpo.schedule: async has engine and trainer work at the same time, "
                "so neither may leave the device: set cluster.residency to resident, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _steps_need_a_sum(self) -> GrpoRecipe:
        if self.grpo.advantage.supervision == "process" and self.rewards.combine != "weighted_sum":
            raise ValueError(
                "grpo.advantage.supervision: process adds up the rewards of steps: "
                "leave rewards.combine at weighted_sum"
            )
        return self


class EvalRecipe(RunRecipe):
    """``align eval``: held-out accuracy of a model."""

    kind: Literal["eval"]
    eval: EvalConfig
    """Held-out parts and their metrics."""
    rollout: RolloutConfig = RolloutConfig()
    """Engine settings."""


class StageConfig(Section):
    """One stage of a pipeline."""

    recipe: str
    """Recipe file, beside the pipeline file or relative to the working directory."""
    set: dict[str, object] = {}
    """Overrides. ``${stage}`` inside a value stands for that stage's run directory."""


class PipelineRecipe(Section):
    """``align run``: stages in order, each fed by those before it."""

    kind: Literal["pipeline"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the pipeline and of its directory under runs/."""
    seed: int = Field(0, ge=0)
    """Given to every stage that sets none of its own."""
    run_dir: str | None = None
    """Directory that holds one run directory per stage; default runs/<name>."""
    stages: dict[str, StageConfig] = Field(min_length=1)
    """Stage name → recipe and overrides, in order."""

    @property
    def directory(self) -> Path:
        """Where the stages' run directories and ``pipeline.json`` are."""
        return Path(self.run_dir or f"runs/{self.name}")


Recipe = Annotated[
    SftRecipe | RewardModelRecipe | GrpoRecipe | EvalRecipe | PipelineRecipe, Field(discriminator="kind")
]
KINDS: dict[str, type[Section]] = {
    "sft": SftRecipe,
    "rm": RewardModelRecipe,
    "grpo": GrpoRecipe,
    "eval": EvalRecipe,
    "pipeline": PipelineRecipe,
}
