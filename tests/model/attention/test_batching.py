from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.model.attention import batching
from align.model.attention.batching import micro_batches, packed_batches, packed_size, rectangles


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_every_row_once_and_within_budget(lengths, budget):
    batches = micro_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = max(lengths[row] for row in batch) * len(batch)
        assert padded <= budget or len(batch) == 1


def test_equal_lengths_have_no_padding():
    batches = micro_batches([10, 20, 10, 20, 10, 20], 60)
    assert [len({[10, 20, 10, 20, 10, 20][row] for row in batch}) for batch in batches] == [1, 1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 80)), max_size=60), st.integers(1, 600))
def test_packed_rows_once_together_and_within_budget(rows, budget):
    names = [f"p{group}" for group, _ in rows]
    prompts = [10 * (group + 1) for group, _ in rows]
    lengths = [length for _, length in rows]
    batches = packed_batches(names, prompts, lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        changes = [row for i, row in enumerate(batch) if i == 0 or names[row] != names[batch[i - 1]]]
        fed = sum(prompts[row] for row in changes) + sum(lengths[row] - 1 for row in batch)
        assert fed <= budget or len(batch) == 1


@given(st.lists(st.integers(1, 120), max_size=80), st.integers(1, 100))
def test_each_piece_goes_into_the_first_bin_that_has_room(sizes, budget):
    room = batching._Room(len(sizes), budget)
    plain: list[int] = []
    for size in sizes:
        fits = [at for at, taken in enumerate(plain) if taken + size <= budget]
        place = fits[0] if fits else len(plain)
        plain += [0] * (place == len(plain))
        plain[place] += size
        assert room.first(size) == place


def test_two_groups_fill_one_batch_and_a_large_one_is_split():
    # 10 + 3·4 = 22 tokens each; the third group, 10 + 2·20 = 50, needs two pieces of 30.
    names = ["a"] * 3 + ["b"] * 3 + ["c"] * 2
    batches = packed_batches(names, [10] * 8, [5] * 6 + [21] * 2, 44)
    assert sorted(map(sorted, batches)) == [[0, 1, 2, 3, 4, 5], [6], [7]]


def test_the_size_of_packed_rows_by_hand():
    # Prompts of 3 tokens behind which 4 + 2 are fed (2 rows of 4), and of 2 tokens behind which 0 + 1.
    prompts, lengths = [[1, 2, 3]] * 2 + [[4, 5]] * 2, [5, 3, 1, 2]
    fed, padding, passes = packed_size(prompts, lengths, [[0, 1, 2, 3]])
    assert fed == (3 + 4 + 2) + (2 + 0 + 1)
    assert padding == 1 - (6 + 1) / (8 + 2)
    assert passes == 1
    # In two pieces the first prompt is fed twice, and only the second group is padded.
    fed, padding, passes = packed_size(prompts, lengths, [[0], [1, 2, 3]])
    assert fed == (3 + 4) + (3 + 2) + (2 + 1)
    assert padding == pytest.approx(1 - 7 / (4 + 2 + 2))
    assert passes == 3 / 2
    assert packed_size([[1, 2]], [1], [[0]]) == (2, 0.0, 1)


def cost(lengths, cuts):
    """Places of the rectangles and what their calls cost, in places."""
    return sum(
        len(lengths[begin:end]) * max(lengths[begin:end]) + batching.CALLS for begin, end in pairwise(cuts)
    )


@given(st.lists(st.integers(0, 300), max_size=9))
def test_no_other_cut_into_rectangles_computes_less(lengths):
    found = rectangles(lengths)
    assert [row for rows in found for row in rows] == list(range(len(lengths)))
    inner = range(1, len(lengths))
    every = [[0, *cuts, len(lengths)] for count in range(len(lengths)) for cuts in combinations(inner, count)]
    found_cuts = [0, *(rows.stop for rows in found)]
    assert cost(lengths, found_cuts) == min((cost(lengths, cuts) for cuts in every), default=0)


def test_rectangles_by_hand(monkeypatch):
    # Whole: 4 rows of 200. Cut in the middle: 2 of 200 and 2 of 50 save 300 places for one more call.
    assert rectangles([200, 190, 50, 40]) == [range(0, 2), range(2, 4)]
    monkeypatch.setattr(batching, "CALLS", 301)
    assert rectangles([200, 190, 50, 40]) == [range(0, 4)]
    assert rectangles([]) == []


def test_rectangles_bound_the_padding_that_is_reported():
    # Behind 3 tokens 200 and 50 are fed: two rectangles, so nothing is padded.
    fed, padding, _ = packed_size([[1, 2, 3]] * 2, [201, 51], [[0, 1]])
    assert (fed, padding) == (253, 0.0)
