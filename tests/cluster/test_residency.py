from __future__ import annotations

import pytest

from align.cluster.residency import Residency
from align.config.recipe import GrpoRecipe
from align.errors import EngineError
from align.plan.memory import memory_by_stage
from align.plan.residency import Household


class Device:
    """Parts with a size each, and a peak: what a mover and a meter see of real memory."""

    SIZE = {"policy": 2, "optimizer": 12, "reference": 2, "engine": 2, "kv_cache": 5}  # noqa: RUF012

    def __init__(self, there) -> None:
        self.there, self.log, self.fails = set(there), [], None
        self.peak = self.used()

    def used(self) -> int:
        return sum(self.SIZE[part] for part in self.there)

    def sleep(self, part) -> None:
        self.log.append(f"-{part}")
        if self.fails == part:
            raise RuntimeError("out of memory")
        self.there.remove(part)  # raises when it sleeps already
        self.peak = self.used()

    def wake(self, part) -> None:
        self.log.append(f"+{part}")
        if self.fails == part:
            raise RuntimeError("out of memory")
        assert part not in self.there
        self.there.add(part)
        self.peak = self.used()

    def compute(self, size: int) -> None:
        self.peak = max(self.peak, self.used() + size)

    def take(self) -> float:
        peak, self.peak = self.peak, self.used()
        return float(peak)


def household(**sections) -> Household:
    base = {
        "kind": "grpo",
        "name": "t",
        "policy": {"path": "x"},
        "data": {"path": "x"},
        "rewards": {"terms": {"a": {"function": "a"}}},
    }
    return Household.of(GrpoRecipe.model_validate({**base, **sections}), "cuda")


def residency(**sections):
    home = household(**sections)
    device = Device(home.present)
    return Residency(home, dict.fromkeys(home.present, device), home.present, device.take), device


def one_step(stages, device) -> None:
    for name, size in {"data": 0, "rollout": 1, "score": 0, "reference": 3, "update": 7}.items():
        with stages.stage(name):
            device.compute(size)
    with stages.stage("sync"):
        stages.want("sync")
        device.compute(4)
        stages.want("verify")
        device.compute(1)


def test_a_step_moves_as_the_table_says_and_reports_peaks():
    stages, device = residency()
    one_step(stages, device)
    device.log.clear()
    stages.metrics()
    one_step(stages, device)
    assert device.log == [
        *("-kv_cache", "+policy", "+reference"),  # reference; rollout found all in place
        *("-engine", "-reference", "+optimizer"),  # update
        *("-optimizer", "+engine"),  # sync
        *("-policy", "+kv_cache"),  # verify
    ]
    assert stages.now == device.there == {"engine", "kv_cache"}
    assert stages.metrics() == {
        "memory/rollout_gib": 7 + 1,
        "memory/reference_gib": 6 + 3,
        "memory/update_gib": 14 + 7,
        "memory/sync_gib": max(4 + 4, 7 + 1),
    }
    assert stages.metrics() == {}


def test_the_peak_is_below_the_one_without_scheduling():
    peaks = []
    for choice in ("scheduled", "resident"):
        stages, device = residency(cluster={"residency": choice})
        one_step(stages, device)
        peaks.append(max(stages.metrics().values()))
    assert peaks == [14 + 7, 23 + 7]


def test_planner_and_scheduler_agree():
    sizes = {
        "weights": 2,
        "AdamW moments": 12,
        "reference": 2,
        "engine weights": 2,
        "engine KV cache": 5,
    }
    for choice in ("scheduled", "resident"):
        stages, _ = residency(cluster={"residency": choice})
        kinds = memory_by_stage(sizes, household(cluster={"residency": choice}))
        planned = {stage: sum(each.values()) for stage, each in kinds.items()}
        for _ in range(2):
            for name in planned:
                with stages.stage(name):
                    pass
        stages.metrics()
        for name in planned:
            with stages.stage(name):
                pass
        measured = {key.split("/")[1].removesuffix("_gib"): peak for key, peak in stages.metrics().items()}
        assert measured == planned


def test_seconds_are_taken_by_stage_and_moves_apart():
    stages, device = residency()
    one_step(stages, device)
    seconds = stages.take()
    assert set(seconds) == {"data", "rollout", "score", "reference", "update", "sync", "move"}
    assert stages.take() == {}
    stages.want("rollout")
    stages.want("update")  # outside of a stage: not timed
    assert stages.take() == {}


def test_what_runs_between_two_steps_counts_to_no_stage():
    stages, device = residency()
    with stages.stage("rollout"):
        pass
    stages.take()
    stages.metrics()
    device.compute(100)
    with stages.stage("rollout"):
        device.compute(1)
    assert stages.metrics() == {"memory/rollout_gib": 8}


def test_an_inner_stage_gives_the_outer_one_its_parts_back():
    stages, device = residency()
    with stages.stage("rollout"):
        device.compute(1)
        with stages.stage("reference"):
            assert device.there == {"policy", "reference", "engine"}
            device.compute(9)
        assert device.there == {"engine", "kv_cache"}
        device.compute(2)
    assert stages.metrics() == {"memory/rollout_gib": 7 + 2, "memory/reference_gib": 6 + 9}


def test_a_stage_that_raises_leaves_a_known_device():
    stages, device = residency()
    with pytest.raises(ValueError, match="boom"), stages.stage("update"):
        raise ValueError("boom")
    assert stages.now == device.there == {"policy", "optimizer"}
    with stages.stage("rollout"):
        assert stages.now == device.there == {"engine", "kv_cache"}


def test_after_a_failed_move_no_stage_begins():
    stages, device = residency()
    with stages.stage("update"):
        pass
    device.fails = "engine"
    entered = []
    reason = "engine could not wake for the stage 'rollout': out of memory"
    for name in ("rollout", "update"):
        with pytest.raises(EngineError, match=reason), stages.stage(name):
            entered.append(name)
    assert entered == []
    assert device.log[-1] == "+engine"  # tried once, and nothing after it
    assert stages.now == device.there  # the moves before it are on record


def test_an_unknown_stage_moves_nothing():
    stages, device = residency()
    for use in (stages.want, lambda name: stages.stage(name).__enter__()):
        with pytest.raises(EngineError, match="no stage is called 'warmup'"):
            use("warmup")
    assert device.log == []
    assert stages.take() == {}


def test_a_part_without_mover_moves_by_itself():
    home = household(rewards={"terms": {"m": {"model": "x"}}})
    device = Device(Device.SIZE)
    stages = Residency(home, dict.fromkeys(Device.SIZE, device), home.present)
    with stages.stage("score"):
        assert stages.now == {"scorers", "engine"}
        assert device.there == {"engine"}
    assert stages.metrics() == {}  # nobody measures


def test_the_log_says_what_moves():
    assert residency()[0].describe().endswith("always: none")
    assert "when used: none" in residency(cluster={"residency": "resident"})[0].describe()
