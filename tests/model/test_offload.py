"""Moving a policy between devices, as far as a CPU can show it: memory changes, tensors do not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from align.config.recipe import GrpoRecipe
from align.errors import EngineError
from align.model.offload import Offload, relocate, tensors_of
from align.model.policy import PolicyModel
from align.types import TrainBatch

POLICY = Path(__file__).parents[2] / "recipes/quickstart/policy"
TRAINED = ("policy", "optimizer", "reference")


def policy_of(**policy) -> PolicyModel:
    recipe = {
        "kind": "grpo",
        "name": "offload",
        "policy": {"path": str(POLICY), "init": "random", **policy},
        "data": {"path": "none"},
        "rewards": {"terms": {"none": {"function": "none"}}},
        "optim": {"lr": 1e-2},
    }
    return PolicyModel(GrpoRecipe.model_validate(recipe), device="cpu")


def batch(policy: PolicyModel) -> TrainBatch:
    rows = TrainBatch(
        prompt_ids=["p/0", "p/0"],
        prompt_tokens=[[3, 4, 5], [3, 4, 5]],
        completion_tokens=[[6, 7, 8], [9, 10]],
        rollout_logprobs=[[-6.0] * 3, [-6.0] * 2],
        advantages=[1.0, -1.0],
        token_weights=[0.1, 0.1],
    )
    rows.ref_logprobs = policy.ref_logprobs(rows)
    return rows


@pytest.mark.parametrize("policy", [{"dtype": "bfloat16"}, {"dtype": "float32"}, {"lora": {"rank": 4}}])
def test_training_does_not_notice_that_its_memory_moved(policy):
    results = []
    for moving in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)  # fresh adapters
            trained = policy_of(**policy)
        for _ in range(3):
            trained.update(batch(trained))
            if moving:
                for part in TRAINED:
                    if part != "reference" or trained.reference is not None:
                        relocate(trained, part, torch.clone)
        results.append((trained.logprobs(batch(trained)), trained.ref_logprobs(batch(trained))))
    assert results[0] == results[1]


def test_every_byte_belongs_to_one_part():
    """bf16 weights, fp32 masters and two moments, and the frozen copy: 2 + 12 + 2 bytes a parameter."""
    policy = policy_of(dtype="bfloat16")
    policy.update(batch(policy))
    found = {part: list(tensors_of(policy, part)) for part in TRAINED}
    addresses = [tensor.untyped_storage().data_ptr() for tensors in found.values() for tensor in tensors]
    assert len(addresses) == len(set(addresses))
    count = sum(p.numel() for p in policy.model.parameters())
    for part, width in {"policy": 2, "optimizer": 12, "reference": 2}.items():
        size = sum(tensor.nbytes for tensor in found[part])
        assert width * count <= size < width * count + 4096, part  # beside them buffers and step counters


def test_on_a_cpu_nothing_moves_and_the_log_says_so(caplog):
    policy = policy_of()
    offload = Offload(policy, "cpu")
    before = [p.data_ptr() for p in policy.model.parameters()]
    with caplog.at_level(logging.INFO):
        offload.sleep("policy")
    assert "policy stays where it is: main memory is the device" in caplog.text
    assert [p.data_ptr() for p in policy.model.parameters()] == before
    with pytest.raises(EngineError, match="no policy that is awake"):
        offload.sleep("policy")
    offload.wake("policy")
    with pytest.raises(EngineError, match="no policy that is asleep"):
        offload.wake("policy")


def test_a_part_that_the_policy_lacks():
    with pytest.raises(EngineError, match="no reference that is awake"):
        Offload(policy_of(lora={"rank": 4}), "cpu").sleep("reference")
