"""The experience of one step: sampled groups, their scores, and the advantages to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from align.algo.assemble import step_advantages
from align.algo.dynamic import has_signal, refill
from align.algo.finite import check_advantages
from align.algo.step_rewards import token_advantages
from align.config.recipe import GrpoRecipe
from align.train.grpo.parts import Parts
from align.types import Group, Prompt, SampleScore

Advantage = float | list[float] | None
"""Of a completion, or of each of its tokens under process supervision; None: not trained on."""


@dataclass(slots=True)
class Experience:
    """Everything sampled in one step, in the order in which the prompts were drawn."""

    groups: list[Group] = field(default_factory=list)
    """Those that are finished."""
    carried: list[Group] = field(default_factory=list)
    """Those that the next step continues (``rollout.partial_tokens``)."""
    scores: list[SampleScore] = field(default_factory=list)
    advantages: list[Advantage] = field(default_factory=list)
    """One per completion of ``groups``."""
    trained: list[Group] = field(default_factory=list)
    """The groups to train on; all of them without dynamic sampling."""
    trained_advantages: list[Advantage] = field(default_factory=list)
    rounds: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """What the rewards report, and the share of groups that are carried."""

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
    and reported, but not trained on (DAPO §3.2). Groups that are cut are not replaced: they come next step.
    """
    config, stage = recipe.grpo, parts.stages.stage
    found, wanted, dynamic = Experience(), config.prompts_per_step, config.dynamic_sampling
    while count := refill(
        wanted - len(found.carried), len(found.trained), len(found.groups), found.rounds, dynamic
    ):
        with stage("data"):
            known = {group.prompt.id for group in (*found.groups, *found.carried, *parts.carried)}
            carried = parts.carried[:count]
            del parts.carried[:count]
            drawn = parts.sampler.next(count - len(carried))
            prompts = [prompt for prompt in drawn if prompt.id not in known]
        with stage("rollout"):
            sampled = sample_and_submit(parts, prompts, carried, config.group_size, step)
        with stage("score"):
            scores = parts.rewards.collect()
        groups = [group for group in sampled if group.finished]
        found.carried += [group for group in sampled if not group.finished]
        found_advantages = advantages_of(recipe, parts, groups, scores)
        check_advantages(groups, scores, found_advantages, step)
        advantages = iter(found_advantages)
        for group in groups:
            own = [next(advantages) for _ in group.completions]
            train = not dynamic or (has_signal(flat(own)) and len(found.trained) < wanted)
            found.add(group, own, train=train)
        found.scores += scores
        found.rounds += 1
    found.metrics = parts.rewards.metrics()
    if recipe.rollout.partial_tokens is not None:
        parts.carried.extend(found.carried)
        every = len(found.groups) + len(found.carried)
        found.metrics["rollout/carried_share"] = len(found.carried) / max(1, every)
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


def sample_and_submit(
    parts: Parts, prompts: Sequence[Prompt], carried: Sequence[Group], group_size: int, step: int
) -> list[Group]:
    """Continue the carried groups and sample G completions per prompt; the groups in that order.

    Scoring of a group starts as soon as it is finished.
    """
    ended: dict[str, Group] = {}
    for group in parts.rollout.sample(prompts, group_size, step, carried):
        if group.finished:
            parts.rewards.submit(group)
        ended[group.prompt.id] = group
    return [ended[prompt.id] for prompt in (*(group.prompt for group in carried), *prompts)]
