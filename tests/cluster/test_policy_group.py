"""Two training ranks in actors of their own: what they push, and which of them is named when one dies."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from align.cluster.policy_group import PolicyGroup
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.errors import EngineError
from align.types import TrainBatch

POLICY = Path(__file__).parents[2] / "recipes/quickstart/policy"


RECIPE = GrpoRecipe.model_validate(
    {
        "kind": "grpo",
        "name": "ranks",
        "policy": {"path": str(POLICY), "init": "random", "dtype": "bfloat16"},
        "cluster": {"processes": 2, "expert_parallel": 2},
        "data": {"path": "none"},
        "rewards": {"terms": {"none": {"function": "none"}}},
        "grpo": {"group_size": 4, "max_prompt_tokens": 64, "beta": 0},
        "optim": {"lr": 1e-2, "warmup_steps": 0},
        "rollout": {"max_new_tokens": 32, "kv_cache_gib": 1, "max_num_seqs": 8},
    }
)


def batch() -> TrainBatch:
    return TrainBatch(
        prompt_ids=["p/0", "p/0", "p/1"],
        prompt_tokens=[[5, 6, 7], [5, 6, 7], [9, 8]],
        completion_tokens=[[10, 11], [12, 13, 14], [15, 16]],
        rollout_logprobs=[[-5.0] * 2, [-5.0] * 3, [-5.0] * 2],
        advantages=[1.0, -1.0, 0.5],
        token_weights=[0.1] * 3,
    )


def in_buckets_of(actor: Any, nbytes: int) -> None:
    actor.bucket_bytes = nbytes


def test_ranks_push_into_an_engine_and_a_dead_one_is_named(placement: Any) -> None:
    two = replace(placement, trainers=placement.trainers * 2).with_threads(1)
    rollout = RolloutGroup.start(two, RECIPE, str(POLICY))
    policy = PolicyGroup.start(two, RECIPE, None)
    sync = WeightSync(policy, rollout, RECIPE, list(range(5, 69)))
    # Every tensor goes alone: layers that an engine fuses from several wait for their parts.
    ray.get([actor.__ray_call__.remote(in_buckets_of, 1) for actor in policy.actors])
    first = sync.push()
    ray.get([actor.__ray_call__.remote(in_buckets_of, 1 << 20) for actor in policy.actors])
    before = policy.logprobs(batch())
    found = policy.update(batch())
    assert {"memory/rank_0_gib", "memory/rank_1_gib"} <= found.keys()
    assert policy.logprobs(batch()) != before
    pieces: list[Any] = policy.publish(1, True)
    assert not pieces[-1].last
    assert rollout.load(pieces)  # and goes no further: the next push begins anew
    second = sync.push()  # the probe holds trainer and engine against each other
    assert (first.bytes, first.tensors, second.version) == (second.bytes, second.tensors, 1)
    ray.kill(rollout.actors[0])

    asked = [actor.__ray_call__.remote(lambda self: os.getpid()) for actor in policy.actors]
    os.kill(ray.get(asked)[1], signal.SIGKILL)
    with pytest.raises(EngineError, match="the training actor 1 process died"):
        policy.logprobs(batch())
    ray.kill(policy.actors[0])
