from __future__ import annotations

import contextlib
import signal
import threading
import time

import pytest

from align.reward.functions.deadline import deadline


@pytest.fixture(autouse=True)
def _own_timer():
    """Another timer, that of the test run, must not fire in between."""
    handler = signal.getsignal(signal.SIGALRM)
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, left, interval)


def test_code_that_takes_too_long_is_interrupted():
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"not done after 0.1 s"), deadline(0.1):
        time.sleep(30)
    assert time.monotonic() - start < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_code_in_time_leaves_nothing_behind():
    before = signal.getsignal(signal.SIGALRM)
    with deadline(100):
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_timer_that_was_running_goes_on():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 50, 7)
    with deadline(100):
        time.sleep(0.05)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert 1 < left < 49.96
    assert interval == 7


def test_other_threads_have_no_limit():
    done = []

    def work() -> None:
        with deadline(0.01):
            time.sleep(0.1)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_an_alarm_that_is_swallowed_comes_again():
    def swallow_one() -> None:
        with contextlib.suppress(TimeoutError):
            time.sleep(30)
        time.sleep(30)

    start = time.monotonic()
    with pytest.raises(TimeoutError), deadline(0.1):
        swallow_one()
    assert time.monotonic() - start < 10
