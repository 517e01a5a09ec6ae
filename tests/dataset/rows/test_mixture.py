from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.config.data import PartConfig
from align.dataset.rows.mixture import epoch_counts, epoch_rows, shares, summarise
from align.dataset.rows.parts import Part


def test_the_papers_mixture():
    """80 : 20 of 1.2M and 0.3M rows: every row once."""
    sizes = {"helpful": 1_200_000, "safety": 300_000}
    assert epoch_counts(sizes, {"helpful": 80, "safety": 20}) == sizes


def test_a_small_part_is_repeated_and_a_large_one_thinned():
    sizes, weights = {"helpful": 70, "safety": 30}, {"helpful": 0.2, "safety": 0.8}
    assert epoch_counts(sizes, weights) == {"helpful": 20, "safety": 80}
    counts = Counter(epoch_rows(sizes, weights, seed=0))
    safety = [count for (name, _), count in counts.items() if name == "safety"]
    assert sorted(safety) == [2] * 10 + [3] * 20
    helpful = [count for (name, _), count in counts.items() if name == "helpful"]
    assert helpful == [1] * 20


def test_without_weights_every_row_once():
    sizes = {"a": 7, "b": 3}
    assert shares(sizes, {"a": None, "b": None}) == {"a": 0.7, "b": 0.3}
    rows = epoch_rows(sizes, {"a": None, "b": None}, seed=1)
    assert sorted(rows) == [("a", n) for n in range(7)] + [("b", n) for n in range(3)]


def test_largest_remainder():
    """10 rows in thirds: 3.33 each, and the one left over goes to the first of equals."""
    sizes = {"a": 4, "b": 3, "c": 3}
    assert epoch_counts(sizes, dict.fromkeys(sizes, 1.0)) == {"a": 4, "b": 3, "c": 3}
    assert epoch_counts({"a": 5, "b": 5}, {"a": 2, "b": 1}) == {"a": 7, "b": 3}


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.01, 100)), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_exact_proportions_and_even_use(parts, seed):
    sizes = {f"p{n}": size for n, (size, _) in enumerate(parts)}
    weights = {f"p{n}": weight for n, (_, weight) in enumerate(parts)}
    counts = epoch_counts(sizes, weights)
    total = sum(sizes.values())
    assert sum(counts.values()) == total
    for name, share in shares(sizes, weights).items():
        assert abs(counts[name] - share * total) < 1 + 1e-6
    used = Counter(row for epoch in range(3) for row in epoch_rows(sizes, weights, seed=seed, epoch=epoch))
    for name, size in sizes.items():
        times = [used[name, place] for place in range(size)]
        assert sum(times) == 3 * counts[name]
        assert max(times) - min(times) <= 1


def test_order_depends_on_seed_and_epoch_alone():
    sizes, weights = {"a": 50, "b": 20}, {"a": 1.0, "b": 1.0}
    first = epoch_rows(sizes, weights, seed=0, epoch=0)
    assert first == epoch_rows(sizes, weights, seed=0, epoch=0)
    assert first != epoch_rows(sizes, weights, seed=0, epoch=1)
    assert first != epoch_rows(sizes, weights, seed=1, epoch=0)
    names = [name for name, _ in first]
    assert names not in (sorted(names), sorted(names, reverse=True))  # parts are mixed


def test_table():
    parts = [Part("a", PartConfig(), "a.jsonl", 12, 2, []), Part("b", PartConfig(), "b.jsonl", 5, 0, [])]
    lines = summarise(
        parts,
        {"a": 3, "b": 9},
        {"a": [10] * 8, "b": [20, 40, 30]},
        dropped={"a": 2, "b": 0},
        truncated={"a": 0, "b": 1},
    )
    a, b = lines
    assert (a.found, a.excluded, a.dropped, a.truncated, a.rows, a.epoch, a.repeated) == (
        12,
        2,
        2,
        0,
        8,
        3,
        0,
    )
    assert (b.rows, b.epoch, b.repeated, b.truncated) == (3, 9, 6, 1)
    assert (a.row_share, b.row_share) == (0.25, 0.75)
    assert (a.token_share, b.token_share) == pytest.approx((0.1, 0.9))  # 30 and 270 tokens
