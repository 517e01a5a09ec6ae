"""A started GRPO run, and how a recipe becomes one. This file alone makes the concrete classes behind the
Protocols that the loop knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.checkpoint.store import Checkpoint
from align.cluster.memory import together
from align.cluster.placement import Placement, cluster
from align.cluster.policy_group import PolicyGroup
from align.cluster.residency import Mover, Residency
from align.cluster.reward_pool import RewardPool
from align.cluster.rollout_group import RolloutGroup
from align.cluster.scorer_actor import ScorerClient, start_scorers
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.dataset.prompts import PromptSampler
from align.model.files.load import resolve_model
from align.plan.params import known_active
from align.plan.residency import Household, Part
from align.plan.source import read_config
from align.report.performance import Performance
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory
from align.train.evaluate import evaluate
from align.train.grpo.partial import pack, unpack
from align.train.grpo.parts import Marks, Parts
from align.train.grpo.prepared import Prepared, one_of_each_part, predicates
from align.train.grpo.sandbox_note import sandbox_note
from align.types import Group, StepStats


@dataclass(frozen=True, slots=True)
class Job:
    """A started GRPO run."""

    recipe: GrpoRecipe
    prepared: Prepared
    parts: Parts
    sampler: PromptSampler
    marks: Marks
    policy: PolicyGroup
    rollout: RolloutGroup
    rewards: RewardPool
    sync: WeightSync
    residency: Residency
    peak_gib: Callable[[], float]
    performance: Performance
    reporter: Reporter
    file: Path

    def after_step(self, stats: StepStats) -> None:
        """Complete a step's metrics and report it."""
        stats.metrics |= self.residency.metrics() | {
            "memory/engine_gib": self.rollout.memory_gib(),
            "rollout/engines": float(len(self.rollout.actors)),
        }
        stats.metrics |= self.performance.metrics(stats.metrics, stats.seconds)
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


def start_job(
    recipe: GrpoRecipe,
    prepared: Prepared,
    run: RunDirectory,
    reporter: Reporter,
    stack: ExitStack,
    file: Path,
) -> Job:
    placement = stack.enter_context(
        cluster(recipe.cluster, recipe.rollout.engines, recipe.rollout.tensor_parallel)
    )
    resident = not recipe.scheduled(placement.device) or recipe.cluster.reward_devices > 0
    scorers = start_scorers(placement, recipe.rewards, resident=resident, file=file)
    rewards = RewardPool(
        recipe.rewards,
        seed=recipe.seed,
        compile_expression=predicates(file),
        max_new_tokens=recipe.rollout.max_new_tokens,
        run_dir=run.path,
        scorers=scorers,
        find_model=resolve_model,
        recipe=file,
        max_steps=recipe.grpo.steps,
    )
    stack.callback(rewards.close)
    rewards.smoke(one_of_each_part(prepared.prompts))
    if note := sandbox_note(term.function for term in rewards.terms):
        reporter.message(note)
    reporter.message("starting the policy and the rollout engine")
    policy, rollout, residency, peak_gib = _engines(recipe, prepared, placement, list(scorers.values()))
    reporter.message(residency.describe())
    sampler = PromptSampler(prepared.prompts, recipe.data, seed=recipe.seed)
    sync = WeightSync(policy, rollout, recipe, prepared.probe, residency.want)
    carried: list[Group] = []
    marks = Marks(
        lambda: {"sampler": sampler.state(), "rewards": rewards.state_dict(), "carried": pack(carried)}
    )
    parts = Parts(sampler, policy, rollout, rewards, sync, residency, prepared.decode, marks.note, carried)
    return Job(
        recipe=recipe,
        prepared=prepared,
        parts=parts,
        sampler=sampler,
        marks=marks,
        policy=policy,
        rollout=rollout,
        rewards=rewards,
        sync=sync,
        residency=residency,
        peak_gib=peak_gib,
        performance=Performance(
            len(policy.actors), known_active(read_config(recipe.policy.path)), policy.peak_flops()
        ),
        reporter=reporter,
        file=file,
    )


def _engines(
    recipe: GrpoRecipe, prepared: Prepared, placement: Placement, scorers: Sequence[ScorerClient]
) -> tuple[PolicyGroup, RolloutGroup, Residency, Callable[[], float]]:
    """Policy and rollout engines, started one after the other: both need all cores, and on a GPU an
    engine sizes itself by what is free. Last, what asks all actors for their peak memory, GiB."""
    household = Household.of(recipe, placement.device)
    trained: tuple[Part, ...] = ("policy", "optimizer", "reference")
    rollout = RolloutGroup.spawn(placement, recipe)  # its imports need no device
    policy = PolicyGroup.start(placement, recipe, prepared.chat_template)
    away = household.movable.intersection(trained)
    for part in away:
        policy.sleep(part)
    rollout.open(prepared.model, prepared.context)

    def peak_gib() -> float:
        peaks = [*policy.peaks_gib(), *rollout.peaks_gib(), *(scorer.take_peak_gib() for scorer in scorers)]
        return together(peaks, placement.device)

    movers: dict[Part, Mover] = {"engine": rollout, "kv_cache": rollout}
    residency = Residency(
        household,
        movers | dict.fromkeys(trained, policy),
        household.present - away,
        # Asking an engine that samples would wait for it, and under `async` it samples all the time.
        peak_gib if recipe.grpo.schedule == "sync" else None,
    )
    return policy, rollout, residency, peak_gib
