"""Whole recipes, one per command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from align.config.base import Section, refusal
from align.config.data import DataConfig, EvalConfig, PreferenceDataConfig
from align.config.grpo import GrpoConfig
from align.config.optim import OptimConfig
from align.config.places import path_fault, place_fault
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

    @property
    def directory_key(self) -> str:
        """The key that says so."""
        return "run_dir" if self.run_dir else "name"

    @model_validator(mode="after")
    def _possible_place(self) -> Self:
        if fault := place_fault(self.directory, key=self.directory_key):
            raise fault
        return self


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


TrlRecipe = SftRecipe | RewardModelRecipe
"""What one of TRL's trainers runs."""


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
            in_turns = self.cluster.placement == "hybrid" and self.grpo.schedule == "sync"
            return device == "cuda" and in_turns
        return self.cluster.residency == "scheduled"

    @model_validator(mode="after")
    def _experts_over_ranks(self) -> GrpoRecipe:
        ranks, experts = self.cluster.processes, self.cluster.expert_parallel
        if ranks % experts:
            raise refusal(
                f"the experts of a layer cannot be shared by {experts} of {ranks} ranks",
                key="cluster.expert_parallel",
                remedy=f"set it to a divisor of cluster.processes ({ranks})",
            )
        return self

    @model_validator(mode="after")
    def _devices_for_models(self) -> GrpoRecipe:
        if self.cluster.reward_devices and not any(term.model for term in self.rewards.terms.values()):
            raise refusal(
                "no reward term names a model that could use devices of its own",
                key="cluster.reward_devices",
                remedy="set it to 0, or leave it out",
            )
        return self

    @model_validator(mode="after")
    def _apart_or_in_turns(self) -> GrpoRecipe:
        if self.cluster.placement == "disaggregated" and self.cluster.residency == "scheduled":
            raise refusal(
                "with devices of their own, engines and trainers have nothing to make room for",
                key="cluster.residency",
                remedy="set it to resident, or leave it out",
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
        scaled = [
            f"rewards.terms.{name}.{'clip' if term.clip else 'calibration'}"
            for name, term in self.rewards.terms.items()
            if term.function is not None and (term.clip or term.calibration != "none")
        ]
        if self.grpo.advantage.supervision == "process" and scaled:
            raise refusal(
                "process supervision takes the rewards of a function's steps as they are, so a score on "
                "another scale cannot stand beside them",
                key=scaled[0],
                remedy="leave it out, and bound the rewards in the function itself",
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

    @field_validator("recipe")
    @classmethod
    def _possible_path(cls, recipe: str) -> str:
        if fault := path_fault(recipe):
            raise refusal(fault.message, key="", remedy=fault.remedy)
        return recipe


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

    @model_validator(mode="after")
    def _possible_places(self) -> Self:
        for stage in ("", *self.stages):
            key = f"stages.{stage}" if stage else "run_dir" if self.run_dir else "name"
            if fault := place_fault(self.directory / stage, key=key):
                raise fault
        return self


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
