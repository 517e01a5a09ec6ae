from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.config.data import DataConfig
from align.dataset.rows.sampler import PromptSampler
from align.errors import CheckpointError, DataError
from align.types import Prompt


def sampler(sizes, weights=None, seed=0):
    prompts = [Prompt(f"{name}/{n}", (), [], {}, name) for name, size in sizes.items() for n in range(size)]
    parts = {name: {"weight": weights[name]} if weights else {} for name in sizes}
    return PromptSampler(prompts, DataConfig(parts=parts), seed=seed)


def names(prompts):
    return [prompt.id for prompt in prompts]


def test_one_pass_shows_every_prompt_once():
    stream = sampler({"a": 12})
    first = [name for _ in range(3) for name in names(stream.next(4))]
    assert sorted(first) == sorted(f"a/{n}" for n in range(12))
    second = [name for _ in range(3) for name in names(stream.next(4))]
    assert sorted(second) == sorted(first)
    assert first != second
    assert first != sorted(first)


def test_weights_hold_in_every_step():
    """80 : 20, five prompts a step: four and one, each time."""
    stream = sampler({"maths": 600, "safety": 80}, {"maths": 80, "safety": 20})
    for _ in range(40):
        parts = Counter(prompt.part for prompt in stream.next(5))
        assert parts == {"maths": 4, "safety": 1}


def test_without_weights_parts_count_by_their_prompts():
    stream = sampler({"a": 30, "b": 10})
    drawn = Counter(name for _ in range(5) for name in names(stream.next(8)))
    assert len(drawn) == 40  # one pass over both parts together
    assert set(drawn.values()) == {1}


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.1, 10)), min_size=1, max_size=3),
    st.integers(1, 6),
    st.integers(0, 5),
    st.integers(1, 12),
)
def test_shares_evenness_and_resume(parts, count, seed, steps):
    sizes = {f"p{n}": size for n, (size, _) in enumerate(parts)}
    weights = {f"p{n}": weight for n, (_, weight) in enumerate(parts)}
    stream = sampler(sizes, weights, seed)
    drawn: Counter[str] = Counter()
    total = 0
    for step in range(steps):
        state = json.loads(json.dumps(stream.state()))
        try:
            given_out = names(stream.next(count))
        except DataError:  # more different prompts of a part than it has
            assert count > min(sizes.values())
            return
        resumed = sampler(sizes, weights, seed)
        resumed.restore(state)
        assert names(resumed.next(count)) == given_out, step
        assert resumed.state() == stream.state()
        assert len(set(given_out)) == count  # no prompt twice in one step
        drawn.update(given_out)
        total += count
        for name in sizes:
            share = weights[name] / sum(weights.values())
            times = [drawn[f"{name}/{place}"] for place in range(sizes[name])]
            assert abs(sum(times) - share * total) < len(parts)
            assert max(times) - min(times) <= 2


def test_seam_of_two_passes():
    """5 prompts, 3 a step: each step differs within itself, and 5 steps show each prompt 3 times."""
    for seed in range(30):
        stream = sampler({"a": 5}, seed=seed)
        steps = [names(stream.next(3)) for _ in range(5)]
        assert all(len(set(step)) == 3 for step in steps)
        counts = Counter(name for step in steps for name in step)
        assert max(counts.values()) - min(counts.values()) <= 2
        assert sum(counts.values()) == 15


def test_a_whole_part_each_step():
    stream = sampler({"a": 4})
    for _ in range(5):
        assert sorted(names(stream.next(4))) == ["a/0", "a/1", "a/2", "a/3"]
    with pytest.raises(DataError, match="more different prompts of part 'a' than its 4"):
        stream.next(5)


def test_order_depends_on_the_seed_alone():
    assert names(sampler({"a": 50}, seed=1).next(10)) == names(sampler({"a": 50}, seed=1).next(10))
    assert names(sampler({"a": 50}, seed=1).next(10)) != names(sampler({"a": 50}, seed=2).next(10))


def test_a_cursor_of_other_data_or_seed():
    state = sampler({"a": 5}).state()
    with pytest.raises(CheckpointError, match="belongs to other data"):
        sampler({"a": 6}).restore(state)
    with pytest.raises(CheckpointError, match="belongs to another seed"):
        sampler({"a": 5}, seed=1).restore(state)


def test_no_prompts():
    with pytest.raises(DataError, match="no prompts"):
        PromptSampler([], DataConfig(), seed=0)
