"""Several engines beside one, and an engine of two workers: the same completions, whoever makes them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

from align.cluster.policy_group import PolicyGroup
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.errors import EngineError
from align.model.files.load import load_tokenizer
from align.types import Group, Prompt

POLICY = Path(__file__).parents[2] / "recipes/quickstart/policy"
GROUP = 4


def settings(tensor_parallel: int = 1, replay: str = "off") -> GrpoRecipe:
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "several",
            "policy": {"path": str(POLICY), "init": "random", "dtype": "float32"},
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            "grpo": {"group_size": GROUP, "max_prompt_tokens": 64, "beta": 0, "replay": replay},
            "optim": {"lr": 1e-2, "warmup_steps": 0},
            "rollout": {
                "max_new_tokens": 32,
                "kv_cache_gib": 1,
                "max_num_seqs": 8,
                "tensor_parallel": tensor_parallel,
            },
        }
    )


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    tokens = load_tokenizer(settings().policy)("What is 7 + 15 - 4?")["input_ids"]
    return [Prompt(f"p/{i}", (), tokens[: 3 + i % 4]) for i in range(8)]


@pytest.fixture(scope="module")
def policy(placement: Any) -> Iterator[PolicyGroup]:
    policy = PolicyGroup.start(placement, settings(), None)
    yield policy
    ray.kill(policy.actors[0])


def connected(policy: PolicyGroup, rollout: RolloutGroup, recipe: GrpoRecipe) -> WeightSync:
    sync = WeightSync(policy, rollout, recipe, list(range(5, 69)))
    sync.push()
    return sync


def sampled(rollout: RolloutGroup, prompts: list[Prompt], step: int = 1) -> list[Group]:
    return sorted(rollout.sample(prompts, GROUP, step), key=lambda group: group.prompt.id)


@pytest.fixture(scope="module")
def alone(placement: Any, policy: PolicyGroup, prompts: list[Prompt]) -> list[Group]:
    """What one engine samples."""
    rollout = RolloutGroup.start(placement, settings(replay="rollout"), str(POLICY))
    connected(policy, rollout, settings(replay="rollout"))
    groups = sampled(rollout, prompts)
    ray.kill(rollout.actors[0])
    return groups


def tokens(groups: list[Group]) -> list[list[list[int]]]:
    return [[each.token_ids for each in group.completions] for group in groups]


def test_two_engines_sample_what_one_does_and_go_on_as_one(
    placement: Any, policy: PolicyGroup, prompts: list[Prompt], alone: list[Group]
) -> None:
    two = replace(placement, engines=placement.engines * 2).with_threads(1)
    rollout = RolloutGroup.start(two, settings(), str(POLICY))
    sync = connected(policy, rollout, settings())
    assert sync.transports == ["shared_memory", "shared_memory"]
    found = sampled(rollout, prompts)
    assert tokens(found) == tokens(alone)
    answers = rollout.answer(prompts, 8, 0.0)
    assert [each.prompt_id for each in answers] == [prompt.id for prompt in prompts]

    # An engine that dies while it samples: the other makes the rest, and the next push reaches it alone.
    victim = rollout.actors[1]
    groups = rollout.sample(prompts, GROUP, 1)
    first = next(groups)
    kill(victim)
    rest = [first, *groups]
    assert tokens(sorted(rest, key=lambda group: group.prompt.id)) == tokens(alone)
    assert rollout.actors == [each for each in rollout.actors if each != victim]
    assert len(rollout.actors) == 1
    report = sync.push()
    assert report.probe_max < 1e-3
    assert rollout.places() == rollout.places()[:1]

    # The last one: nothing is left to go on with.
    groups = rollout.sample(prompts, GROUP, 2)
    next(groups)
    kill(rollout.actors[0])
    with pytest.raises(EngineError, match="died"):
        list(groups)


def kill(actor: Any) -> None:
    """End the process of an actor that is at work."""
    asked = actor.__ray_call__.options(concurrency_group="feed").remote(lambda self: os.getpid())
    os.kill(ray.get(asked), signal.SIGKILL)


@pytest.mark.slow
def test_an_engine_of_two_workers(
    placement: Any, policy: PolicyGroup, prompts: list[Prompt], alone: list[Group]
) -> None:
    recipe = settings(tensor_parallel=2, replay="rollout")
    rollout = RolloutGroup.start(placement.with_threads(1), recipe, str(POLICY))
    sync = connected(policy, rollout, recipe)
    found = sampled(rollout, prompts)
    assert tokens(found) == tokens(alone)
    for group, other in zip(found, alone, strict=True):
        for each, one in zip(group.completions, other.completions, strict=True):
            assert each.logprobs == pytest.approx(one.logprobs, abs=1e-4)
            assert np.array_equal(each.routed_experts, one.routed_experts)
    rollout.sleep("engine")
    rollout.sleep("kv_cache")
    rollout.wake("engine")
    rollout.wake("kv_cache")
    assert sync.push().probe_max < 1e-3
    assert tokens(sampled(rollout, prompts)) == tokens(alone)

    children = ray.get(rollout.actors[0].__ray_call__.remote(workers))
    assert len(children) == 2
    ray.kill(rollout.actors[0])
    left = [psutil.Process(each) for each in children if psutil.pid_exists(each)]
    _, alive = psutil.wait_procs(left, 20)
    assert not alive


def workers(actor: Any) -> list[int]:
    found = psutil.Process().children(recursive=True)
    return [each.pid for each in found if "Worker" in each.name() or "spawn_main" in " ".join(each.cmdline())]
