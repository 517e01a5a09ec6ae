import threading
import time

import pytest

from align.rollout.feed import Abandoned, Feed, closed
from align.types import Prompt

ONE, TWO = Prompt("a", (), [1]), Prompt("b", (), [2])


def test_work_comes_in_order_and_ends() -> None:
    feed = Feed()
    assert feed.take(wait=False) == []  # nothing came yet
    feed.put([ONE])
    feed.put([TWO])
    feed.close()
    assert [feed.take(wait=True), feed.take(wait=False), feed.take(wait=True)] == [[ONE], [TWO], None]
    assert closed([ONE, TWO]).take(wait=True) == [ONE, TWO]


def test_waiting_ends_with_the_first_work() -> None:
    feed = Feed()
    threading.Thread(target=lambda: (time.sleep(0.05), feed.put([ONE]))).start()
    assert feed.take(wait=True) == [ONE]


def test_what_is_abandoned_is_told() -> None:
    feed = Feed()
    feed.abandon()
    with pytest.raises(Abandoned):
        feed.take(wait=True)
