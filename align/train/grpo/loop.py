"""Group relative policy optimisation: the loop.

DeepSeekMath Algorithm 1 with outcome supervision, as the DeepSeek-V2 report uses it (§4.2).
Departures, each a field of the recipe: the token form of the objective is the default (the report
prints the sequence form); truncated importance sampling corrects for the engine's kernels.
The loop knows engines only by the Protocols of ``align.types``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from align.algo.agreement import step_agreement
from align.algo.assemble import assemble
from align.algo.step_rewards import mean_advantages
from align.config.recipe import GrpoRecipe
from align.train.grpo.experience import Experience, gather
from align.train.grpo.partial import staleness
from align.train.grpo.parts import Parts
from align.types import StepStats, SyncReport


def grpo(
    recipe: GrpoRecipe, parts: Parts, start: int, after_step: Callable[[StepStats], None]
) -> Iterator[int]:
    """Yield the number of each finished step, from ``start`` + 1 to ``recipe.grpo.steps``."""
    for step in range(start + 1, recipe.grpo.steps + 1):
        experience = gather(recipe, parts, step)
        metrics = learn(recipe, parts, experience)
        with parts.stages.stage("sync"):
            pushed = parts.sync.push()
        after_step(step_stats(step, experience, metrics, pushed, parts.stages.take()))
        yield step


def learn(recipe: GrpoRecipe, parts: Parts, experience: Experience) -> dict[str, float]:
    """Update the policy on one step's experience; what the updates report, as one step.

    Every step makes ``epochs`` × ``minibatches`` calls of ``policy.update``, with an empty batch where
    nothing carries a signal, so that the learning rate follows the steps.
    """
    config, policy, stage = recipe.grpo, parts.policy, parts.stages.stage
    batches = assemble(
        experience.trained, experience.trained_advantages, config, recipe.rollout.max_new_tokens
    )
    trained = [batch for batch in batches if len(batch)]
    with stage("reference"):
        for batch in trained if config.beta > 0 else []:
            batch.ref_logprobs = policy.ref_logprobs(batch)
    several = len(trained) * config.epochs > 1
    if several:  # otherwise the update is on-policy: ρ = 1
        with stage("old"):
            for batch in trained:
                batch.old_logprobs = policy.logprobs(batch)
    with stage("update"):
        metrics = of_step([policy.update(batch) for _ in range(config.epochs) for batch in batches])
    return metrics | step_agreement(trained, config.importance) if several else metrics


def step_stats(
    step: int,
    experience: Experience,
    metrics: dict[str, float],
    pushed: SyncReport,
    seconds: dict[str, float],
) -> StepStats:
    """What the step reports."""
    metrics = (
        experience.metrics
        | metrics
        | staleness(experience.groups, pushed.version - 1)
        | {
            "rollout/rounds": float(experience.rounds),
            "rollout/trained_share": len(experience.trained) / max(1, len(experience.groups)),
            "sync/probe_mean": pushed.probe_mean,
            "sync/probe_max": pushed.probe_max,
            "sync/version": float(pushed.version),
        }
    )
    advantages = mean_advantages(experience.advantages)
    return StepStats(step, metrics, seconds, experience.groups, experience.scores, advantages)


def of_step(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Metrics of a step from those of its updates: tokens add up, of memory the most, else the mean.

    An update that does not report a metric, as those without signal, is left out of it.
    """
    values: dict[str, list[float]] = {}
    for each in updates:
        for name, value in each.items():
            values.setdefault(name, []).append(value)
    return {name: _combined(name, found) for name, found in values.items()}


def _combined(name: str, values: Sequence[float]) -> float:
    if name.endswith("_tokens"):
        return sum(values)
    return max(values) if name.startswith("memory/") else sum(values) / len(values)
