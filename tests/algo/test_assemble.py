from dataclasses import replace

import numpy as np
import pytest

from align.algo.assemble import assemble, step_advantages
from align.config.grpo import GrpoConfig
from align.types import Completion, Group, Prompt, SampleScore


def group(name: str, lengths: list[int]) -> Group:
    prompt = Prompt(id=name, messages=(), token_ids=[1, 2])
    return Group(
        prompt,
        [
            Completion(name, index, [5] * length, [-0.5] * length, "", "stop", 0, index)
            for index, length in enumerate(lengths)
        ],
    )


def score(name: str, index: int, reward: float | None) -> SampleScore:
    return SampleScore(name, index, reward, {})


def test_scores_are_matched_by_id_not_by_position():
    groups = [group("a", [1, 1]), group("b", [1, 1])]
    scores = [score("b", 1, 0.0), score("a", 0, 0.0), score("b", 0, 1.0), score("a", 1, 1.0)]
    found = step_advantages(groups, scores, GrpoConfig())
    assert [each is not None and each > 0 for each in found] == [False, True, True, False]


def test_a_missing_score_is_an_error():
    with pytest.raises(KeyError):
        step_advantages([group("a", [1, 1])], [score("a", 0, 1.0)], GrpoConfig())


def test_samples_without_advantage_leave_the_denominators_too():
    (batch,) = assemble([group("a", [2, 4, 8])], [1.0, None, -1.0], GrpoConfig(), 16)
    assert batch.advantages == [1.0, -1.0]
    assert batch.token_weights == pytest.approx([1 / 4, 1 / 16])


def test_zero_advantages_count_but_are_not_computed_without_kl():
    groups = [group("a", [2, 2]), group("b", [2, 2])]
    advantages = [1.0, -1.0, 0.0, 0.0]
    (with_kl,) = assemble(groups, advantages, GrpoConfig(beta=0.04), 16)
    (without,) = assemble(groups, advantages, GrpoConfig(beta=0.0), 16)
    assert len(with_kl) == 4
    assert len(without) == 2
    assert without.token_weights == with_kl.token_weights[:2]


def test_minibatches_hold_whole_groups_and_their_own_denominators():
    groups = [group(name, [2, 2]) for name in "abcd"]
    batches = assemble(groups, [1.0, -1.0] * 4, GrpoConfig(minibatches=2, prompts_per_step=4), 16)
    assert [batch.prompt_ids for batch in batches] == [["a", "a", "b", "b"], ["c", "c", "d", "d"]]
    assert all(weight == pytest.approx(1 / 8) for batch in batches for weight in batch.token_weights)


def test_a_minibatch_without_signal_is_empty():
    groups = [group("a", [2, 2]), group("b", [2, 2])]
    config = GrpoConfig(minibatches=2, prompts_per_step=2, beta=0.0)
    batches = assemble(groups, [1.0, -1.0, 0.0, 0.0], config, 16)
    assert [batch.prompt_ids for batch in batches] == [["a", "a"], []]
    assert [len(batch) for batch in assemble([], [], config, 16)] == [0, 0]


def test_routed_experts_follow_their_completion_under_rollout_replay_alone():
    whole = group("a", [1, 2, 3])
    routed = [
        replace(each, routed_experts=np.full((each.sample_index, 1, 2), each.sample_index, np.uint8))
        for each in whole.completions
    ]
    config = GrpoConfig(beta=0.0, replay="rollout")
    (batch,) = assemble([Group(whole.prompt, routed)], [1.0, 0.0, -1.0], config, 16)
    assert [int(each.max()) if each.size else None for each in batch.routed_experts] == [None, 2]
    (last,) = batch.select([1]).routed_experts
    assert np.array_equal(last, routed[2].routed_experts)
    for groups, replay in (([Group(whole.prompt, routed)], "trainer"), ([whole], "rollout")):
        (without,) = assemble(groups, [1.0, 0.0, -1.0], config.model_copy(update={"replay": replay}), 16)
        assert without.routed_experts is None
