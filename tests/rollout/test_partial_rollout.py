"""Completions cut and continued by a real engine, under the same weights and across a push.

Log-probabilities of a completion in spans against one prefill of it, fp32: equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

from align.algo.assemble import assemble
from align.cluster import rollout_actor, rollout_group
from align.cluster.policy_group import PolicyGroup
from align.cluster.remote import wait
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.model.files.load import load_tokenizer
from align.types import Group, Prompt

LONGEST, BUDGET, GROUP = 24, 10, 3
SAME = 1e-4


@ray.remote(concurrency_groups=rollout_actor.CALLS)
class SettableRollout(rollout_actor.RolloutActor.__ray_metadata__.modified_class):  # type: ignore[misc]
    """Its settings can be changed."""

    def settle(self, **settings: Any) -> None:
        self.engine.settings = self.engine.settings.model_copy(update=settings)


class Pair:
    """An engine that reports routed experts, and the trainer that fills it."""

    def __init__(self, placement: Any, path: str) -> None:
        self.recipe = GrpoRecipe.model_validate(
            {
                "kind": "grpo",
                "name": "partial",
                "policy": {"path": path, "init": "random", "dtype": "float32"},
                "data": {"path": "none"},
                "rewards": {"terms": {"none": {"function": "none"}}},
                "grpo": {"group_size": GROUP, "max_prompt_tokens": 64, "beta": 0, "replay": "rollout"},
                "optim": {"lr": 5e-2, "warmup_steps": 0},
                "rollout": {"max_new_tokens": LONGEST, "partial_tokens": BUDGET, "kv_cache_gib": 1},
            }
        )
        self.rollout = RolloutGroup.spawn(placement, self.recipe)
        self.policy = PolicyGroup.start(placement, self.recipe, None)
        self.rollout.open(path)
        tokens = load_tokenizer(self.recipe.policy)("What is 7 + 15 - 4?")["input_ids"]
        self.prompts = [Prompt(f"p/{i}", (), tokens[: 3 + i]) for i in range(3)]
        self.sync = WeightSync(self.policy, self.rollout, self.recipe, (tokens * 8)[:64])
        self.sync.push()

    def settle(self, **settings: Any) -> None:
        wait(self.rollout.actors[0].settle.remote(**settings), "engine")

    def sample(self, step: int, carried: list[Group] | None = None) -> list[Group]:
        """The groups by prompt; new ones unless some are carried."""
        found = self.rollout.sample([] if carried else self.prompts, GROUP, step, carried or ())
        return sorted(found, key=lambda group: group.prompt.id)

    def scored(self, group: Group, index: int) -> list[float]:
        """The completion's log-probabilities under the engine's present weights."""
        tokens = group.prompt.token_ids + group.completions[index].token_ids
        return wait(self.rollout.actors[0].score.remote(tokens), "engine")[len(group.prompt.token_ids) - 1 :]


@pytest.fixture(scope="module")
def pair(placement, repo_root) -> Iterator[Pair]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout_group, "RolloutActor", SettableRollout)
        made = Pair(placement, str(repo_root / "recipes/quickstart/policy"))
    yield made
    for actor in (made.policy.actors[0], made.rollout.actors[0]):
        ray.kill(actor)


@pytest.fixture(autouse=True)
def _usual_settings(pair: Pair) -> None:
    pair.settle(temperature=1.0, partial_tokens=BUDGET)


def test_greedy_in_pieces_is_greedy_in_one(pair: Pair) -> None:
    pair.settle(temperature=0.0)
    first = pair.sample(1)
    second = pair.sample(2, [group for group in first if not group.finished])
    third = pair.sample(3, [group for group in second if not group.finished])
    pair.settle(temperature=0.0, partial_tokens=None)
    whole = {group.prompt.id: group.completions[0] for group in pair.sample(1)}
    assert max(len(each.token_ids) for each in whole.values()) == LONGEST  # else nothing was cut twice
    ended = {group.prompt.id: group for group in (*first, *second, *third) if group.finished}
    for name, group in ended.items():
        for each in group.completions:
            assert each.token_ids == whole[name].token_ids
            assert each.logprobs == pytest.approx(whole[name].logprobs, abs=SAME)
            assert (each.text, each.finish_reason) == (whole[name].text, whole[name].finish_reason)
            assert each.versions == whole[name].versions  # one span: the weights stayed
            assert np.array_equal(each.routed_experts, whole[name].routed_experts)


def test_sampled_in_pieces_under_the_same_weights(pair: Pair) -> None:
    first = pair.sample(1)
    cut = [each for group in first for each in group.completions if each.finish_reason == "cut"]
    assert len(cut) >= 5
    assert {len(each.token_ids) for each in cut} == {BUDGET}
    second = pair.sample(2, first)
    assert [group.prompt.id for group in second] == [group.prompt.id for group in first]
    for before, after in zip(first, second, strict=True):
        for index, (old, new) in enumerate(zip(before.completions, after.completions, strict=True)):
            if old.finish_reason != "cut":
                assert new == old
                continue
            assert new.sample_index == index
            assert new.token_ids[:BUDGET] == old.token_ids
            assert new.logprobs[:BUDGET] == old.logprobs
            assert BUDGET < len(new.token_ids) <= 2 * BUDGET
            assert new.logprobs == pytest.approx(pair.scored(after, index), abs=SAME)
            assert new.routed_experts is not None
            assert len(new.routed_experts) == len(before.prompt.token_ids) + len(new.token_ids) - 1
    # The same step continues alike, another step otherwise.
    tokens = [[each.token_ids for group in groups for each in group.completions] for groups in
              (second, pair.sample(2, first[::-1]), pair.sample(3, first))]  # fmt: skip
    assert tokens[0] == tokens[1]
    assert tokens[0] != tokens[2]


def test_after_a_push_both_versions_are_in_the_spans(pair: Pair) -> None:
    first = pair.sample(5)
    begun = pair.sync.held
    old_scores = [[pair.scored(group, index) for index in range(GROUP)] for group in first]
    batches = assemble(first, [1.0, -1.0, 0.5] * 3, pair.recipe.grpo, LONGEST)
    for batch in batches:
        pair.policy.update(batch)
    pair.sync.push()
    second = pair.sample(6, first)
    moved = []
    for group, before, scores in zip(second, first, old_scores, strict=True):
        for index, each in enumerate(group.completions):
            if before.completions[index].finish_reason != "cut":
                continue
            rest = len(each.token_ids) - BUDGET
            assert each.versions == ((begun, BUDGET), (begun + 1, rest))
            assert each.weight_version == begun
            # Each span has the log-probabilities of the weights that sampled it.
            now = pair.scored(group, index)
            assert each.logprobs[:BUDGET] == pytest.approx(scores[index], abs=SAME)
            assert each.logprobs[BUDGET:] == pytest.approx(now[BUDGET:], abs=SAME)
            moved.append(max(abs(a - b) for a, b in zip(each.logprobs[:BUDGET], now, strict=False)))
    assert min(moved) > 10 * SAME  # else the push could not show
    # The trainer takes the joined completions, experts and all.
    (batch,) = assemble(second, [1.0, -1.0, 0.5] * 3, pair.recipe.grpo, LONGEST)
    metrics = pair.policy.update(batch)
    assert metrics["mismatch/logprob_max"] > 10 * SAME
