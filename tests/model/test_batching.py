from hypothesis import given
from hypothesis import strategies as st

from align.model.batching import micro_batches


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
