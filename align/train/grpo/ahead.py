"""GRPO one step ahead: the engine samples step t + 1 while the policy learns from step t.

The staleness is bounded by one: weights are pushed once both are done, so a completion is never
more than one update older than the policy that learns from it. ``Completion.weight_version`` says
which weights wrote it. The objective stays on-policy in form (ρ = 1 in the first update), and the
importance weight π_old / π_rollout of ``algo.importance`` now covers that one update too, beside the
difference of kernels. Worth it where engine and trainer have devices of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

from align.config.recipe import GrpoRecipe
from align.train.grpo.experience import gather
from align.train.grpo.loop import learn, step_stats
from align.train.grpo.parts import Parts, Stages
from align.types import StepStats


def grpo_async(
    recipe: GrpoRecipe,
    parts: Parts,
    start: int,
    after_step: Callable[[StepStats], None],
    beside: Stages,
) -> Iterator[int]:
    """Yield the number of each finished step, from ``start`` + 1 to ``recipe.grpo.steps``.

    Args:
        recipe: as for ``grpo``, and so are the others.
        parts: trainer and engine must be able to work at the same time.
        start: steps done.
        after_step: called with what each step reports.
        beside: times the sampling, which runs in a thread of its own.
    """
    last = recipe.grpo.steps
    ahead = replace(parts, stages=beside)
    with ThreadPoolExecutor(1, thread_name_prefix="rollout") as engine:
        coming = engine.submit(gather, recipe, ahead, start + 1)
        for step in range(start + 1, last + 1):
            with parts.stages.stage("rollout"):  # only what learning did not hide
                experience = coming.result()
            if step < last:
                coming = engine.submit(gather, recipe, ahead, step + 1)
            metrics = learn(recipe, parts, experience)
            with parts.stages.stage("rollout"):
                wait([coming])
            with parts.stages.stage("sync"):
                pushed = parts.sync.push()
            seconds = parts.stages.take() | {f"ahead_{name}": each for name, each in beside.take().items()}
            after_step(step_stats(step, experience, metrics, pushed, seconds))
            yield step
