from __future__ import annotations

from typing import Any

import pytest

from align.config.recipe import GrpoRecipe
from align.errors import EngineError
from align.plan.memory import PART, memory_by_stage
from align.plan.residency import MOVABLE, PARTS, TABLE, Household, Move, transitions

FULL = {"policy", "optimizer", "reference", "engine", "kv_cache"}


def recipe(**sections: Any) -> GrpoRecipe:
    base = {
        "kind": "grpo",
        "name": "t",
        "policy": {"path": "x"},
        "data": {"path": "x.jsonl"},
        "rewards": {"terms": {"a": {"function": "a"}}},
    }
    return GrpoRecipe.model_validate({**base, **sections})


def gpu(**sections: Any) -> Household:
    return Household.of(recipe(**sections), "cuda")


def moves(*texts: str) -> list[Move]:
    return [Move(*text.split()) for text in texts]  # type: ignore[arg-type]


def test_what_makes_room_goes_first_and_a_cache_never_outlives_its_engine():
    now, wanted = {"engine", "kv_cache", "policy"}, {"policy", "optimizer", "reference"}
    assert transitions(now, wanted) == moves(
        "sleep kv_cache", "sleep engine", "wake optimizer", "wake reference"
    )
    assert transitions(wanted, now) == moves(
        "sleep reference", "sleep optimizer", "wake engine", "wake kv_cache"
    )
    assert transitions(now, now) == []


def test_one_step_on_a_gpu():
    during = gpu().during_a_step()
    assert during == {
        "data": {"engine", "kv_cache"},
        "rollout": {"engine", "kv_cache"},
        "score": {"engine", "kv_cache"},  # rules alone need no device: nothing moves
        "reference": {"policy", "reference", "engine"},
        "old": {"policy", "engine"},
        "update": {"policy", "optimizer"},
        "sync": {"policy", "engine"},
        "verify": {"engine", "kv_cache"},
    }


def test_a_reward_model_takes_the_place_of_the_cache():
    household = gpu(rewards={"terms": {"m": {"model": "x"}}})
    assert household.during_a_step()["score"] == {"scorers", "engine"}
    again = household.wanted("rollout", {"scorers", "engine"})  # dynamic sampling: a further round
    assert transitions({"scorers", "engine"}, again) == moves("sleep scorers", "wake kv_cache")


def test_an_engine_that_sleeps_is_woken_by_the_stages_that_use_it_alone():
    for stage, need in TABLE.items():
        woken = transitions({"policy"}, gpu().wanted(stage, {"policy"}))
        assert (Move("wake", "engine") in woken) == (stage in ("rollout", "sync", "verify")), (stage, need)


def test_optimiser_and_cache_are_never_there_together():
    for there in gpu().during_a_step().values():
        assert not {"optimizer", "kv_cache"} <= there


def test_whatever_leaves_the_engine_is_filled_before_it_samples():
    """Its weights are not kept: between their leaving and the next rollout lies a sync."""
    household = gpu(rewards={"terms": {"m": {"model": "x"}}})
    now, filled = household.present, True
    for stage in [*TABLE, *TABLE]:
        wanted = household.wanted(stage, now)
        filled = (filled and "engine" in wanted) or stage == "sync"
        assert filled or stage not in ("rollout", "verify")
        now = wanted


def test_parts_of_a_run():
    assert gpu().present == FULL
    assert gpu(grpo={"beta": 0}).present == FULL - {"reference"}
    assert gpu(policy={"path": "x", "lora": {}}).present == FULL - {"reference"}
    assert gpu(rewards={"terms": {"m": {"model": "x"}}}).present == set(PARTS)


def test_on_a_cpu_only_what_can_be_thrown_away_moves():
    household = Household.of(recipe(cluster={"residency": "scheduled"}), "cpu")
    assert household.movable == MOVABLE["cpu"] == {"engine", "kv_cache"}
    stays = FULL - household.movable
    during = household.during_a_step()
    assert during["rollout"] == FULL
    assert during["reference"] == stays | {"engine"}
    assert during["update"] == stays
    assert during["sync"] == stays | {"engine"}


@pytest.mark.parametrize(
    ("sections", "device", "moves"),
    [
        ({}, "cuda", True),
        ({}, "cpu", False),  # leaving costs time, and there is room as a rule
        ({"grpo": {"schedule": "async"}}, "cuda", False),  # both work at the same time
        ({"cluster": {"residency": "resident"}}, "cuda", False),
        ({"cluster": {"residency": "scheduled"}}, "cpu", True),
    ],
)
def test_what_moves_unless_the_recipe_says_so(sections, device, moves):
    assert bool(Household.of(recipe(**sections), device).movable) == moves


def test_a_resident_run_moves_nothing():
    household = gpu(cluster={"residency": "resident"})
    assert set(household.during_a_step().values()) == {household.present}


def test_an_unknown_stage_names_the_known_ones():
    with pytest.raises(EngineError, match="no stage is called 'rolout'") as error:
        gpu().wanted("rolout", set())
    assert "rollout, score" in str(error.value)


def test_memory_by_stage_adds_up_the_table():
    memory = {
        "weights": 1,
        "master weights": 2,
        "gradients": 4,
        "AdamW moments": 8,
        "activations (estimate)": 16,
        "reference": 32,
        "engine weights": 64,
        "engine KV cache": 128,
        "reward models": 256,
    }
    assert set(memory) | {"weights (fp32 shard)", "gathered layers"} == set(PART)
    terms = {"terms": {"m": {"model": "x"}}}

    def sums(household: Household) -> dict[str, int]:
        return {stage: sum(kinds.values()) for stage, kinds in memory_by_stage(memory, household).items()}

    assert sums(gpu(rewards=terms)) == {
        "rollout": 64 + 128,
        "score": 64 + 256,
        "reference": 1 + 32 + 64,
        "old": 1 + 64,
        "update": 1 + 2 + 4 + 8 + 16,
        "sync": 1 + 64,
        "verify": 64 + 128,
    }
    everything = sum(memory.values())
    resident = sums(gpu(rewards=terms, cluster={"residency": "resident"}))
    assert resident["update"] == everything
    assert resident["rollout"] == everything - 4 - 16  # gradients and activations end with the update
    cpu = sums(Household.of(recipe(rewards=terms, cluster={"residency": "scheduled"}), "cpu"))
    assert cpu["update"] == everything - 64 - 128
