"""Groups and scores of one step become one train batch."""

from __future__ import annotations

from collections.abc import Sequence

from align.algo.advantage import group_advantages
from align.algo.reduce import token_weights
from align.algo.step_rewards import mean_advantages
from align.config.grpo import GrpoConfig
from align.types import Completion, Group, SampleScore, TrainBatch


def step_advantages(
    groups: Sequence[Group], scores: Sequence[SampleScore], config: GrpoConfig
) -> list[float | None]:
    """One advantage per completion in (prompt, sample) order; None for a sample left out.

    Scores are matched by (prompt id, sample index), never by position.

    Raises:
        KeyError: a completion has no score.
    """
    rewards = {(score.prompt_id, score.sample_index): score.reward for score in scores}
    return [
        advantage
        for group in groups
        for advantage in group_advantages(
            [rewards[each.prompt_id, each.sample_index] for each in group.completions], config.advantage
        )
    ]


def assemble(
    groups: Sequence[Group],
    advantages: Sequence[float | list[float] | None],
    config: GrpoConfig,
    max_new_tokens: int,
) -> list[TrainBatch]:
    """The step's minibatches, each of whole groups, token weights computed over the minibatch.

    Samples without an advantage are left out. At β = 0 a sample whose advantage is 0 adds nothing
    to the gradient: it counts in the denominators but is not computed. A minibatch in which nothing
    is left is empty.

    Args:
        groups: the step's groups.
        advantages: one per completion, in the groups' order; under process supervision a list, one
            per token.
        config: minibatches, reduction, β.
        max_new_tokens: longest completion the sampler allows.
    """
    rows = [(group, completion) for group in groups for completion in group.completions]
    kept = [
        (group, completion, advantage)
        for (group, completion), advantage in zip(rows, advantages, strict=True)
        if advantage is not None and completion.token_ids
    ]
    share = -(-len(groups) // config.minibatches)
    position = {group.prompt.id: index // share for index, group in enumerate(groups)}
    return [
        _batch([row for row in kept if position[row[0].prompt.id] == minibatch], config, max_new_tokens)
        for minibatch in range(config.minibatches)
    ]


def _batch(
    members: Sequence[tuple[Group, Completion, float | list[float]]], config: GrpoConfig, max_new_tokens: int
) -> TrainBatch:
    lengths = [len(completion.token_ids) for _, completion, _ in members]
    weights = token_weights(lengths, config.reduction, max_new_tokens) if members else []
    routed = [one.routed_experts for _, one, _ in members if one.routed_experts is not None]
    per_token = [advantage for _, _, advantage in members if isinstance(advantage, list)]
    batch = TrainBatch(
        prompt_ids=[group.prompt.id for group, _, _ in members],
        prompt_tokens=[group.prompt.token_ids for group, _, _ in members],
        completion_tokens=[completion.token_ids for _, completion, _ in members],
        rollout_logprobs=[completion.logprobs for _, completion, _ in members],
        advantages=[each or 0.0 for each in mean_advantages([advantage for _, _, advantage in members])],
        token_weights=weights,
        token_advantages=per_token or None,
        routed_experts=routed if len(routed) == len(members) and config.engine_routing else None,
    )
    if config.beta > 0:
        return batch
    moves = batch.token_advantages or [[advantage] for advantage in batch.advantages]
    return batch.select([row for row, each in enumerate(moves) if any(each)])
