"""Functions in a process apart: what becomes of one that hangs, ends its process or eats memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from align.errors import RewardError
from align.reward.calls.child import ChildProcess, score_each
from align.reward.calls.limits import DIED
from align.reward.calls.worker import Assignment
from align.reward.contract import Sample

Write = Callable[[str, str], str]

BAD = """
import os
def bad(sample):
    if sample.completion == 'hang':
        while True: pass
    if sample.completion == 'exit': os._exit(3)
    if sample.completion == 'eat': bytearray(2**30)
    return float(os.getpid())
"""


def test_a_lost_process_fails_its_samples_and_the_next_call_has_another(
    write: Write, samples: list[Sample]
) -> None:
    asked = [replace(samples[0], completion=text) for text in ("a", "hang", "exit", "b")]
    with ChildProcess({"bad": Assignment(write("bad.py", BAD), {}, 1.0, 256)}) as child:
        outcomes = score_each(child, "bad", asked, together=False, timeout=1.0)
    assert [outcome.kind for outcome in outcomes] == ["ok", "timeout", "error", "ok"]
    assert outcomes[1].detail == "no answer within 1 s"
    assert outcomes[2].detail == f"{DIED}: exit code 3"
    assert len({outcomes[0].value, outcomes[3].value, float(os.getpid())}) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits private data")
def test_memory_is_limited_and_functions_share_the_process(write: Write, samples: list[Sample]) -> None:
    path = write("bad.py", BAD)
    with ChildProcess({name: Assignment(path, {}, 5.0, 256) for name in ("one", "two")}) as child:
        [one], [two] = (child.score(name, samples[:1]) for name in ("one", "two"))
        assert one.value == two.value
        [eaten] = child.score("one", [replace(samples[0], completion="eat")])
        assert (eaten.kind, eaten.detail.rpartition("\n")[2]) == ("error", "MemoryError (limit 256 MiB)")
        [after] = child.score("two", samples[:1])
        assert after.value not in {None, two.value}


def test_a_list_has_the_time_of_all_its_samples(write: Write, samples: list[Sample]) -> None:
    path = write("nap.py", "import time\ndef nap(samples): time.sleep(1.2); return [1] * len(samples)\n")
    with ChildProcess({"nap": Assignment(path, {}, 0.5, 256)}) as child:
        outcomes = score_each(child, "nap", samples, together=True, timeout=0.5)
        assert [outcome.value for outcome in outcomes] == [1.0] * 3
        assert [outcome.kind for outcome in child.score("nap", samples)] == ["timeout"] * 3


@pytest.mark.parametrize(
    ("body", "message"), [("os._exit(4)", "ended with exit code 4"), ("raise OSError('no disk')", "no disk")]
)
def test_a_file_that_ends_a_fresh_process_is_one_clear_error(
    write: Write, samples: list[Sample], body: str, message: str
) -> None:
    path = write("bad.py", f"import os\n{body}\ndef bad(sample): return 1.0\n")
    with (
        ChildProcess({"bad": Assignment(path, {}, 5.0, 256)}) as child,
        pytest.raises(RewardError, match=message) as caught,
    ):
        child.score("bad", samples[:1])
    assert caught.value.file == path


def test_a_process_that_is_not_asked_is_not_started() -> None:
    with ChildProcess({"none": Assignment("/nowhere.py:f", {}, 5.0, 256)}) as child:
        assert score_each(child, "none", [], together=True, timeout=1.0) == []
