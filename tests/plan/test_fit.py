from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align.config.recipe import GrpoRecipe, SftRecipe
from align.plan.fit import GIB, plan_grpo, plan_sft, sft_steps, training_flops
from align.plan.params import read_shape
from align.plan.source import read_config
from align.plan.table import _remedy

LITE = read_shape(read_config("deepseek-ai/DeepSeek-V2-Lite"))


def sft(**sections: Any) -> SftRecipe:
    base = {
        "kind": "sft",
        "name": "t",
        "policy": {"path": "deepseek-ai/DeepSeek-V2-Lite", "gradient_checkpointing": True},
        "data": {"path": "x.jsonl"},
        "cluster": {"device": "cuda", "processes": 8},
    }
    return SftRecipe.model_validate({**base, **sections})


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The plan must not depend on the machine that runs the test."""
    monkeypatch.setenv("PATH", str(tmp_path))


def test_lite_fits_on_eight_gpus_and_not_on_one():
    eight, one = plan_sft(sft(), LITE), plan_sft(sft(cluster={"device": "cuda", "processes": 1}), LITE)
    assert eight.fits
    assert eight.device_bytes == 80 * GIB
    assert "assumed" in eight.device
    assert not one.fits
    assert one.needed > 18 * LITE.total


def test_tokens_per_step():
    plan = plan_sft(sft(sft={"batch_size": 2, "gradient_accumulation": 4, "max_length": 1000}), LITE)
    assert plan.tokens_per_step == 2 * 4 * 1000 * 8
    assert plan.steps is None


@pytest.mark.parametrize(
    ("rows", "settings", "steps"),
    [
        (2000, {"batch_size": 5, "gradient_accumulation": 5}, 10),  # 200 rows a step
        (2001, {"batch_size": 5, "gradient_accumulation": 5}, 11),
        (2000, {"batch_size": 5, "gradient_accumulation": 5, "max_steps": 3}, 3),
        (1, {"batch_size": 64, "gradient_accumulation": 8}, 1),
    ],
)
def test_steps(rows: int, settings: dict[str, Any], steps: int):
    assert sft_steps(sft(sft=settings), rows) == steps


def test_flops_are_six_per_weight_and_eight_when_recomputed():
    weights = LITE.active_without_embedding
    assert training_flops(LITE, LITE.total, 1, False) == pytest.approx(6 * weights, rel=1e-3)
    assert training_flops(LITE, LITE.total, 1, True) == pytest.approx(8 * weights, rel=1e-3)
    assert training_flops(LITE, 0, 1, False) == pytest.approx(4 * weights, rel=1e-3)


def test_cpu_memory_is_shared_by_the_processes():
    one = plan_sft(sft(cluster={"device": "cpu", "processes": 1}), LITE)
    two = plan_sft(sft(cluster={"device": "cpu", "processes": 2}), LITE)
    assert one.device_bytes // 2 == two.device_bytes


def grpo(**sections: Any) -> GrpoRecipe:
    base = {
        "kind": "grpo",
        "name": "t",
        "policy": {"path": "x"},
        "data": {"path": "x.jsonl"},
        "rewards": {"terms": {"a": {"function": "a"}}},
        "cluster": {"device": "cpu"},
    }
    return GrpoRecipe.model_validate({**base, **sections})


def test_grpo_keeps_reference_and_engine():
    plan = plan_grpo(grpo(rollout={"kv_cache_gib": 3}), LITE)
    assert plan.memory["reference"] == 2 * LITE.total
    assert plan.memory["engine weights"] == 2 * LITE.total
    assert plan.memory["engine KV cache"] == 3 * GIB
    assert plan.steps == 100


def test_without_kl_no_reference_is_kept():
    assert "reference" not in plan_grpo(grpo(grpo={"beta": 0}), LITE).memory
    assert "reference" not in plan_grpo(grpo(policy={"path": "x", "lora": {}}), LITE).memory


def test_a_plan_needs_the_largest_stage():
    scheduled = plan_grpo(grpo(cluster={"device": "cuda"}), LITE)
    kinds = ("weights", "master weights", "gradients", "AdamW moments", "activations (estimate)")
    assert scheduled.needed == sum(scheduled.memory[kind] for kind in kinds)  # the update
    assert set(scheduled.largest_stage) == set(kinds)
    resident = plan_grpo(grpo(cluster={"device": "cuda", "residency": "resident"}), LITE)
    assert resident.needed == sum(resident.memory.values())


def test_the_remedy_is_for_the_largest_stage():
    plan = plan_grpo(grpo(cluster={"device": "cuda"}), LITE)
    cache = replace(plan, memory=plan.memory | {"engine KV cache": 10**15})  # largest of all, but elsewhere
    assert "train adapters" in _remedy(cache)
    assert "gpu_memory_utilization" in _remedy(replace(cache, stages={}))


def test_ranks_share_what_is_trained():
    assert "cluster.processes" in _remedy(plan_sft(sft(), LITE))
    one = plan_grpo(grpo(), LITE)
    assert "cluster.processes" in _remedy(one)
    eight = plan_grpo(grpo(cluster={"device": "cpu", "processes": 8}), LITE)
    assert eight.devices == 8
    for kind in ("gradients", "AdamW moments", "reference"):
        assert eight.memory[kind] == pytest.approx(one.memory[kind] / 8, rel=1e-6)
    assert eight.memory["engine weights"] == one.memory["engine weights"]


def test_apart_an_engine_is_on_no_rank_s_device():
    apart = grpo(cluster={"device": "cpu", "placement": "disaggregated"}, rollout={"tensor_parallel": 2})
    plan = plan_grpo(apart, LITE)
    assert not {kind for kind in plan.memory if "engine" in kind}
    own = (2 * LITE.total // 2 + 2 * GIB) / GIB
    assert any(f"holds {own:,.1f} GiB there" in note for note in plan.notes)


def test_reward_models_are_counted_and_unknown_ones_named():
    terms = {"a": {"model": "deepseek-ai/DeepSeek-V2-Lite"}, "b": {"model": "someone/unheard-of"}}
    plan = plan_grpo(grpo(rewards={"terms": terms}), LITE)
    assert plan.memory["reward models"] == 2 * (LITE.total - LITE.embedding)  # without the output head
    assert any("reward model b is not counted" in note for note in plan.notes)


def test_partial_rollouts_are_noted():
    plan = plan_grpo(grpo(rollout={"max_new_tokens": 1000, "partial_tokens": 300}), LITE)
    assert any("up to 300 tokens a step: the longest takes 4 steps" in note for note in plan.notes)
    assert not any("a step: the longest" in note for note in plan_grpo(grpo(), LITE).notes)


def test_a_prompt_that_is_computed_several_times_is_noted():
    long = {"max_prompt_tokens": 500, "group_size": 8, "micro_batch_tokens": 2500}
    plan = plan_grpo(grpo(grpo=long, rollout={"max_new_tokens": 1000}), LITE)
    assert any("has 8500 tokens, one pass of the trainer 2500" in note for note in plan.notes)
    assert any("computed once per 2 completions" in note for note in plan.notes)
    whole = plan_grpo(grpo(grpo=long, rollout={"max_new_tokens": 250}), LITE)
    assert not any("one pass of the trainer" in note for note in whole.notes)


def test_what_scheduling_would_need_is_noted_where_nothing_moves():
    here, there = (plan_grpo(grpo(cluster={"device": device}), LITE) for device in ("cpu", "cuda"))
    moving = plan_grpo(grpo(cluster={"device": "cpu", "residency": "scheduled"}), LITE)
    assert moving.needed < here.needed
    needs = f"cluster.residency=scheduled its largest stage needs {moving.needed / GIB:,.1f} GiB"
    assert any(needs in note for note in here.notes)
    assert not any("residency" in note for note in [*there.notes, *moving.notes])
