from __future__ import annotations

import random
import resource
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from align.reward.calls.limits import Answer, Limits, call_seed
from align.reward.contract import Sample
from align.reward.functions.registry import resolve

Write = Callable[[str, str], str]

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits private data")


def run(spec: str, samples: list[Sample], *, memory_mib: int = 256) -> Answer:
    return Limits().call(
        resolve(spec),
        samples,
        seed=lambda sample: call_seed(7, "term", 3, sample),
        timeout=5.0,
        memory_mib=memory_mib,
    )


@linux
@pytest.mark.parametrize("body", ["bytearray(size)", "numpy.ones(size, dtype='uint8').sum()"])
def test_memory_beyond_the_limit_is_an_error_and_the_limit_is_lifted_again(
    write: Write, samples: list[Sample], body: str
) -> None:
    path = write(
        "eat.py",
        "import numpy\ndef eat(sample):\n    size = int(sample.completion) * 2**20\n"
        f"    {body}\n    return 1.0\n",
    )
    before = resource.getrlimit(resource.RLIMIT_DATA)
    sizes = [replace(samples[0], completion=text) for text in ("1", "400", "2")]
    answer = run(path, sizes)
    assert [outcome.kind for outcome in answer.outcomes] == ["ok", "error", "ok"]
    assert answer.outcomes[1].detail.endswith("(limit 256 MiB)")
    assert answer.exhausted
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert not run(path, sizes, memory_mib=1024).exhausted


def test_every_call_is_seeded_by_its_sample(write: Write, samples: list[Sample]) -> None:
    path = write(
        "roll.py",
        "import random\nimport numpy\ndef roll(sample): return random.random() + numpy.random.rand()\n",
    )
    rolls = [outcome.value for outcome in run(path, samples).outcomes]
    assert len(set(rolls)) == 3
    assert [outcome.value for outcome in run(path, samples[::-1]).outcomes] == rolls[::-1]
    seed = call_seed(7, "term", 3, samples[1])
    random.seed(seed)
    np.random.seed(seed % 2**32)
    assert rolls[1] == random.random() + np.random.rand()


def test_seeds_differ_by_term_step_and_sample(samples: list[Sample]) -> None:
    seeds = {
        call_seed(run, term, step, sample)
        for run in (1, 2)
        for term in "ab"
        for step in (1, 2)
        for sample in samples
    }
    assert len(seeds) == 2 * 2 * 2 * 3
