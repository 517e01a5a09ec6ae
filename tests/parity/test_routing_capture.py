"""Experts captured from a real engine against the trainer's own routing of the same tokens.

Expert sets that agree, measured on 16 completions of up to 48 tokens: fp32 100%, bf16 99.2%.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from torch import Tensor

from align.algo.assemble import assemble
from align.cluster import rollout_actor, rollout_group
from align.cluster.policy_group import PolicyGroup
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.errors import RecipeError
from align.model.experts.routers import find_routers
from align.model.files.load import load_tokenizer
from align.model.logprobs import completion_logprobs
from align.model.policy import PolicyModel
from align.rollout.engine import Engine
from align.types import Prompt, TrainBatch

POLICY = Path(__file__).parents[2] / "recipes/quickstart/policy"
SHAPE = (2, 2)
"""MoE layers, experts per token."""


@ray.remote(concurrency_groups=rollout_actor.CALLS)
class InspectedRollout(rollout_actor.RolloutActor.__ray_metadata__.modified_class):  # type: ignore[misc]
    """Also computes with its gates alone."""

    def gate_logits(self, hidden: Tensor) -> list[Tensor]:
        model = self.engine.llm.llm_engine.model_executor.driver_worker.worker.model_runner.get_model()
        gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
        return [gate(hidden)[0] for gate in gates]


class Sampled:
    """One policy and engine of a recipe, and what the engine sampled from it."""

    def __init__(self, placement: Any, path: Path, dtype: str) -> None:
        self.recipe = recipe(path, dtype)
        self.rollout = RolloutGroup.spawn(placement, self.recipe)
        self.policy = PolicyGroup.start(placement, self.recipe, None)
        self.rollout.open(str(path))
        tokens = load_tokenizer(self.recipe.policy)("What is 7 + 15 - 4?")["input_ids"]
        prompts = [Prompt(f"p/{i}", (), tokens[: 3 + i]) for i in range(4)]
        WeightSync(self.policy, self.rollout, self.recipe, (tokens * 8)[:64]).push()
        self.groups = list(self.rollout.sample(prompts, 4, 1))
        (self.batch,) = assemble(self.groups, [1.0, -1.0] * 8, self.recipe.grpo, 48)
        self.answer = self.rollout.answer(prompts[:1], 4, 0.0)[0]
        hidden = torch.randn(50, 128, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
        self.hidden, self.gate_logits = hidden, ray.get(self.rollout.actors[0].gate_logits.remote(hidden))
        self.metrics = self.policy.update(self.batch)
        for actor in (self.policy.actors[0], self.rollout.actors[0]):
            ray.kill(actor)


def recipe(path: Path, dtype: str) -> GrpoRecipe:
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "capture",
            "policy": {"path": str(path), "init": "random", "dtype": dtype},
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            "grpo": {
                "group_size": 4,
                "prompts_per_step": 4,
                "max_prompt_tokens": 64,
                "beta": 0.0,
                "replay": "rollout",
            },
            # Fewer places than requests: they join and leave a running batch.
            "rollout": {"max_new_tokens": 48, "temperature": 0.9, "kv_cache_gib": 1, "max_num_seqs": 5},
        }
    )


@pytest.fixture(scope="module")
def placement(placement):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout_group, "RolloutActor", InspectedRollout)
        yield placement


@pytest.fixture(scope="module")
def fp32(placement):
    return Sampled(placement, POLICY, "float32")


@pytest.fixture(scope="module")
def bf16(placement, tmp_path_factory):
    """Of a model directory that says nothing of the gate's type, as those on the hub."""
    folder = tmp_path_factory.mktemp("released") / "policy"
    shutil.copytree(POLICY, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["moe_router_dtype"]
    (folder / "config.json").write_text(json.dumps(config))
    return Sampled(placement, folder, "bfloat16")


def own_experts(sampled: Sampled, batch: TrainBatch, row: int) -> np.ndarray:
    """What the trainer's routers choose for one completion, computed alone: [P + T - 1, L, K]."""
    policy = PolicyModel(sampled.recipe, device="cpu")
    router = policy.routing._router
    assert router is not None
    with router.record() as selected, torch.no_grad():
        completion_logprobs(policy.model, batch.prompt_tokens[row : row + 1], [batch.completion_tokens[row]])
    return torch.stack(selected, 1).numpy()


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_every_fed_token_of_every_completion_has_its_experts(dtype, request):
    groups = request.getfixturevalue(dtype).groups
    for group in groups:
        for each in group.completions:
            fed = len(group.prompt.token_ids) + len(each.token_ids) - 1
            assert each.routed_experts.shape == (fed, *SHAPE)
            assert each.routed_experts.dtype == np.uint8
            assert each.routed_experts.max() < 8
            assert (each.routed_experts[..., 0] != each.routed_experts[..., 1]).all()


def test_fp32_sets_are_the_trainers_own(fp32):
    for row in (0, 5, 15):
        mine, theirs = own_experts(fp32, fp32.batch, row), fp32.batch.routed_experts[row]
        assert np.array_equal(np.sort(mine), np.sort(theirs))
    # The comparison must be able to fail: another completion's experts are others.
    assert not np.array_equal(np.sort(own_experts(fp32, fp32.batch, 1)[:8]), np.sort(theirs[:8]))


def test_fp32_agreement_is_complete(fp32):
    assert fp32.metrics["router/agreement"] == 1
    assert fp32.metrics["router/agreement_layer_1"] == fp32.metrics["router/agreement_layer_2"] == 1
    assert fp32.metrics["router/prompt_disagreement"] == 0
    assert fp32.metrics["mismatch/logprob_max"] < 1e-3


@pytest.mark.slow
def test_bf16_agreement_is_measured(bf16):
    assert 0.97 <= bf16.metrics["router/agreement"] <= 1
    assert bf16.metrics["mismatch/logprob_max"] < 0.1
    print({name: value for name, value in bf16.metrics.items() if name.startswith(("router", "mismatch"))})


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_the_engines_gate_computes_in_fp32_whatever_the_directory_says(dtype, request):
    sampled = request.getfixturevalue(dtype)
    gates = find_routers(PolicyModel(sampled.recipe, device="cpu").model)
    assert len(gates) == len(sampled.gate_logits) == SHAPE[0]
    for gate, logits in zip(gates, sampled.gate_logits, strict=True):
        exact = sampled.hidden.double() @ gate.weight.detach().double().T
        assert logits.dtype == torch.float32
        assert (logits - exact).abs().max() < 1e-6
        rounded = exact.bfloat16().double()
        assert (rounded - exact).abs().max() > 1e-5  # the comparison can fail


def test_answers_carry_no_experts(fp32):
    assert fp32.answer.routed_experts is None


def test_a_compiled_cpu_engine_is_refused():
    settings = recipe(POLICY, "float32").rollout.model_copy(update={"compile": True})
    with pytest.raises(RecipeError, match="compiled engine") as error:
        Engine(str(POLICY), settings, dtype="float32", max_model_len=64, seed=0, routed_experts=True)
    assert error.value.key == "rollout.compile"
