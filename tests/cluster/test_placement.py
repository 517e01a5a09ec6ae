"""Who sits where, and with how many threads: worked by hand."""

from __future__ import annotations

import pytest

from align.cluster.placement import Placement, Seat, Slot, by_node, share
from align.config.run import ClusterConfig
from align.errors import EngineError


def slot(bundle: int, node: str, cores: int = 8) -> Slot:
    return Slot(bundle, node, f"10.0.0.{ord(node) - 96}", cores)


def test_slots_of_a_machine_stand_together() -> None:
    mixed = [slot(0, "b"), slot(1, "a"), slot(2, "b"), slot(3, "a")]
    assert [each.bundle for each in by_node(mixed)] == [1, 3, 0, 2]


def test_a_machine_s_cores_are_shared_by_those_who_compute_at_once() -> None:
    ranks = [slot(0, "a"), slot(1, "a"), slot(2, "b", cores=6)]
    engines = [slot(3, "b", cores=6), slot(4, "c", cores=1)]
    assert share(ranks, [], None) == [4, 4, 6]  # in turns with engines
    assert share(ranks, engines, None) == [4, 4, 3]  # at the same time
    assert share(engines, ranks, None) == [3, 1]
    assert share(ranks, engines, 2) == [1, 1, 1]
    assert share([slot(0, "a", cores=1)] * 3, [], None) == [1, 1, 1]  # never none


def test_reward_models_go_round_the_trainers() -> None:
    seats = tuple(Seat("cpu", slot(i, "a"), 4, None) for i in range(2))
    placement = Placement("cpu", seats, ())
    assert [placement.scorer(number).slot.bundle for number in range(3)] == [0, 1, 0]
    assert [seat.threads for seat in placement.with_threads(1).trainers] == [1, 1]
    own = Placement("cpu", seats, (), None, (Seat("cpu", slot(7, "b"), 4, None),))
    assert [own.scorer(number).slot.bundle for number in range(2)] == [7, 7]
    assert [seat.threads for seat in own.with_threads(1).scorers] == [1]


def test_an_engine_of_several_gpus_does_not_share_a_rank_s() -> None:
    from align.cluster.placement import _check_tensor_parallel

    with pytest.raises(EngineError) as caught:
        _check_tensor_parallel(2, "cuda", apart=False)
    assert caught.value.key == "rollout.tensor_parallel"
    for devices, device, apart in ((2, "cuda", True), (2, "cpu", False), (1, "cuda", False)):
        _check_tensor_parallel(devices, device, apart=apart)


def test_the_recipe_s_defaults_are_one_of_each() -> None:
    config = ClusterConfig()
    assert (config.processes, config.expert_parallel, config.placement) == (1, 1, "hybrid")
