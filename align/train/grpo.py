"""Group relative policy optimisation: the loop.

DeepSeekMath Algorithm 1 with outcome supervision, as the DeepSeek-V2 report uses it (§4.2).
Departures, each a field of the recipe: the token form of the objective is the default (the report
prints the sequence form); truncated importance sampling corrects for the engine's kernels.
The loop knows engines only by the Protocols of ``align.types``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from align.algo.assemble import assemble, step_advantages
from align.config.recipe import GrpoRecipe
from align.types import Group, Policy, Prompt, Rewards, Rollout, StepStats, Sync


class Sampler(Protocol):
    """Where prompts come from; its cursor is part of every checkpoint."""

    def next(self, count: int) -> list[Prompt]: ...


class Stages(Protocol):
    """``with stages.stage("rollout"): …``; ``take`` gives the seconds of each since last asked."""

    def stage(self, name: str) -> AbstractContextManager[Any]: ...
    def take(self) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that the loop drives."""

    sampler: Sampler
    policy: Policy
    rollout: Rollout
    rewards: Rewards
    sync: Sync
    stages: Stages


def grpo(
    recipe: GrpoRecipe, parts: Parts, start: int, after_step: Callable[[StepStats], None]
) -> Iterator[int]:
    """Yield the number of each finished step, from ``start`` + 1 to ``recipe.grpo.steps``."""
    config, stage = recipe.grpo, parts.stages.stage
    for step in range(start + 1, config.steps + 1):
        with stage("data"):
            prompts = parts.sampler.next(config.prompts_per_step)
        with stage("rollout"):
            groups = sample_and_submit(parts, prompts, config.group_size, step)
        with stage("score"):
            scores = parts.rewards.collect()
        advantages = step_advantages(groups, scores, config)
        batches = assemble(groups, advantages, config, recipe.rollout.max_new_tokens)
        with stage("reference"):
            for batch in batches if config.beta > 0 else []:
                batch.ref_logprobs = parts.policy.ref_logprobs(batch)
        if len(batches) * config.epochs > 1:  # otherwise the update is on-policy: ρ = 1
            with stage("old"):
                for batch in batches:
                    batch.old_logprobs = parts.policy.logprobs(batch)
        with stage("update"):
            updates = [parts.policy.update(batch) for _ in range(config.epochs) for batch in batches]
        with stage("sync"):
            pushed = parts.sync.push()
        metrics = mean_of(updates) | {
            "sync/probe_mean": pushed.probe_mean,
            "sync/probe_max": pushed.probe_max,
            "sync/version": float(pushed.version),
        }
        after_step(StepStats(step, metrics, parts.stages.take(), groups, scores, advantages))
        yield step


def sample_and_submit(parts: Parts, prompts: Sequence[Prompt], group_size: int, step: int) -> list[Group]:
    """Sample G completions per prompt; scoring of a group starts as soon as it is finished."""
    finished: dict[str, Group] = {}
    for group in parts.rollout.sample(prompts, group_size, step):
        parts.rewards.submit(group)
        finished[group.prompt.id] = group
    return [finished[prompt.id] for prompt in prompts]


def mean_of(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each metric over the step's updates; empty when no sample carried a signal."""
    names = updates[0] if updates else {}
    return {name: sum(each[name] for each in updates) / len(updates) for name in names}
