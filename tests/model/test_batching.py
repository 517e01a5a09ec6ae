import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.model.batching import micro_batches, packed_batches, packed_size


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


def test_two_groups_fill_one_batch_and_a_large_one_is_split():
    # 10 + 3·4 = 22 tokens each; the third group, 10 + 2·20 = 50, needs two pieces of 30.
    names = ["a"] * 3 + ["b"] * 3 + ["c"] * 2
    batches = packed_batches(names, [10] * 8, [5] * 6 + [21] * 2, 44)
    assert sorted(map(sorted, batches)) == [[0, 1, 2, 3, 4, 5], [6], [7]]


def test_the_size_of_packed_rows_by_hand():
    # Prompts of 3 tokens behind which 4 + 2 are fed (2 rows of 4), and of 2 tokens behind which 0 + 1.
    prompts, lengths = [[1, 2, 3]] * 2 + [[4, 5]] * 2, [5, 3, 1, 2]
    fed, padding = packed_size(prompts, lengths, [[0, 1, 2, 3]])
    assert fed == (3 + 4 + 2) + (2 + 0 + 1)
    assert padding == 1 - (6 + 1) / (8 + 2)
    # In two pieces the first prompt is fed twice, and only the second group is padded.
    fed, padding = packed_size(prompts, lengths, [[0], [1, 2, 3]])
    assert fed == (3 + 4) + (3 + 2) + (2 + 1)
    assert padding == pytest.approx(1 - 7 / (4 + 2 + 2))
    assert packed_size([[1, 2]], [1], [[0]]) == (2, 0.0)
