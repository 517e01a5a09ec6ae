"""A started GRPO run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.checkpoint.store import Checkpoint
from align.cluster.policy_actor import PolicyClient
from align.cluster.residency import Residency
from align.cluster.reward_pool import RewardPool
from align.cluster.rollout_actor import RolloutClient
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.dataset.prompts import PromptSampler
from align.report.reporter import Reporter
from align.train.evaluate import evaluate
from align.train.marks import Marks
from align.train.partial import unpack
from align.train.parts import Parts
from align.train.prepared import Prepared
from align.types import StepStats


@dataclass(frozen=True, slots=True)
class Job:
    """A started GRPO run."""

    recipe: GrpoRecipe
    prepared: Prepared
    parts: Parts
    sampler: PromptSampler
    marks: Marks
    policy: PolicyClient
    rollout: RolloutClient
    rewards: RewardPool
    sync: WeightSync
    residency: Residency
    peak_gib: Callable[[], float]
    reporter: Reporter
    file: Path

    def after_step(self, stats: StepStats) -> None:
        """Complete a step's metrics and report it."""
        stats.metrics |= self.residency.metrics() | {"memory/engine_gib": self.rollout.memory_gib()}
        if self.recipe.grpo.schedule == "async":  # its stages overlap, and nothing is sampled now
            stats.metrics["memory/step_gib"] = self.peak_gib()
        self.reporter.step(stats)

    def evaluate(self, step: int) -> None:
        """Measure the held-out parts with the engine's present weights."""
        if self.prepared.eval_prompts:
            self.residency.want("rollout")
            metrics, _ = evaluate(
                self.recipe.eval, self.prepared.eval_prompts, self.rollout.answer, file=self.file
            )
            self.reporter.evaluation(step, metrics)

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps beside the policy."""
        return {"step": step, "version": self.sync.held, **self.marks.at(step)}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where the checkpoint ends."""
        checkpoint.verify()
        self.residency.want("update")
        self.policy.load(checkpoint.path.resolve())
        state = checkpoint.state()
        self.sampler.restore(state["sampler"])
        self.rewards.load_state_dict(state["rewards"])
        self.parts.carried[:] = unpack(state.get("carried", []), self.prepared.prompts)
        self.sync.version = state["version"]  # pushed once more, under the same number
