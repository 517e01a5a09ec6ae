"""The experience of one step: sampled groups, their scores, and the advantages to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from align.algo.assemble import step_advantages
from align.algo.dynamic import has_signal, refill
from align.algo.step_rewards import token_advantages
from align.config.recipe import GrpoRecipe
from align.train.parts import Parts
from align.types import Group, Prompt, SampleScore

Advantage = float | list[float] | None
"""Of a completion, or of each of its tokens under process supervision; None: not trained on."""


@dataclass(slots=True)
class Experience:
    """Everything sampled in one step, in the order in which the prompts were drawn."""

    groups: list[Group] = field(default_factory=list)
    scores: list[SampleScore] = field(default_factory=list)
    advantages: list[Advantage] = field(default_factory=list)
    """One per completion of ``groups``."""
    trained: list[Group] = field(default_factory=list)
    """The groups to train on; all of them without dynamic sampling."""
    trained_advantages: list[Advantage] = field(default_factory=list)
    rounds: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """What the rewards report."""

    def add(self, group: Group, advantages: list[Advantage], *, train: bool) -> None:
        """Take in a group; one that is not trained on keeps no advantages."""
        self.groups.append(group)
        self.advantages += advantages if train else [None] * len(advantages)
        if train:
            self.trained.append(group)
            self.trained_advantages += advantages


def gather(recipe: GrpoRecipe, parts: Parts, step: int) -> Experience:
    """Sample and score one step; under dynamic sampling, until enough groups carry a signal.

    Under dynamic sampling, groups without signal and those beyond ``prompts_per_step`` are sampled
    and reported, but not trained on (DAPO §3.2).
    """
    config, stage = recipe.grpo, parts.stages.stage
    found, wanted, dynamic = Experience(), config.prompts_per_step, config.dynamic_sampling
    while count := refill(wanted, len(found.trained), len(found.groups), found.rounds, dynamic):
        with stage("data"):
            drawn = {group.prompt.id for group in found.groups}
            prompts = [prompt for prompt in parts.sampler.next(count) if prompt.id not in drawn]
        with stage("rollout"):
            groups = sample_and_submit(parts, prompts, config.group_size, step)
        with stage("score"):
            scores = parts.rewards.collect()
        advantages = iter(advantages_of(recipe, parts, groups, scores))
        for group in groups:
            own = [next(advantages) for _ in group.completions]
            train = not dynamic or (has_signal(flat(own)) and len(found.trained) < wanted)
            found.add(group, own, train=train)
        found.scores += scores
        found.rounds += 1
    found.metrics = parts.rewards.metrics()
    parts.mark(step)
    return found


def advantages_of(
    recipe: GrpoRecipe, parts: Parts, groups: Sequence[Group], scores: Sequence[SampleScore]
) -> Sequence[Advantage]:
    """One per completion, relative to its group."""
    config = recipe.grpo
    if config.advantage.supervision == "outcome":
        return step_advantages(groups, scores, config)
    weights = {name: term.weight for name, term in recipe.rewards.terms.items()}
    return token_advantages(groups, scores, weights, config.advantage, parts.decode)


def flat(advantages: Sequence[Advantage]) -> list[float | None]:
    """Those of tokens beside those of completions."""
    return [each for one in advantages for each in (one if isinstance(one, list) else [one])]


def sample_and_submit(parts: Parts, prompts: Sequence[Prompt], group_size: int, step: int) -> list[Group]:
    """Sample G completions per prompt; scoring of a group starts as soon as it is finished."""
    finished: dict[str, Group] = {}
    for group in parts.rollout.sample(prompts, group_size, step):
        parts.rewards.submit(group)
        finished[group.prompt.id] = group
    return [finished[prompt.id] for prompt in prompts]
