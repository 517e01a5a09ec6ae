import time

import pytest

from align.report import timing
from align.report.timing import StageClock, peak_rss_gib


@pytest.fixture
def now(monkeypatch):
    """A clock that is set by hand."""

    class Hand:
        value = 100.0

    hand = Hand()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: hand.value)
    return hand


def test_stages_add_up_and_take_clears(now):
    clock = StageClock()
    for seconds in (2.0, 3.0):
        with clock.stage("rollout"):
            now.value += seconds
        now.value += 10.0  # outside of any stage
    with clock.stage("update"):
        now.value += 1.0
    assert clock.take() == {"rollout": 5.0, "update": 1.0}
    assert clock.take() == {}


def test_an_inner_stage_stops_the_outer_one(now):
    clock = StageClock()
    with clock.stage("update"):
        now.value += 1.0
        with clock.stage("sync"):
            now.value += 4.0
            with clock.stage("update"):  # the same name again
                now.value += 0.5
        now.value += 2.0
    assert clock.take() == {"update": 3.5, "sync": 4.0}


def test_a_stage_that_raises_is_counted_and_closed(now):
    clock = StageClock()

    def fail():
        with clock.stage("score"):
            now.value += 1.5
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    now.value += 7.0
    assert clock.take() == {"score": 1.5}


def test_taking_inside_a_stage_splits_it(now):
    clock = StageClock()
    with clock.stage("rollout"):
        now.value += 1.0
        assert clock.take() == {"rollout": 1.0}
        now.value += 2.0
    assert clock.take() == {"rollout": 2.0}


def test_real_time_is_wall_time():
    clock = StageClock()
    with clock.stage("sleep"):
        time.sleep(0.05)
    assert 0.05 <= clock.take()["sleep"] < 1.0


def test_peak_memory_is_in_gib():
    before = peak_rss_gib()
    block = bytearray(300 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert peak_rss_gib() >= before
    assert 300 / 1024 < peak_rss_gib() < 64
