import pytest

from align.algo.reduce import token_weights


def test_sequence_mean_gives_each_sequence_the_same_total():
    assert token_weights([2, 8], "sequence_mean", 16) == pytest.approx([1 / 4, 1 / 16])


def test_token_mean_gives_each_token_the_same_weight():
    assert token_weights([2, 8], "token_mean", 16) == pytest.approx([0.1, 0.1])


def test_max_length_ignores_the_lengths():
    assert token_weights([2, 8], "max_length", 16) == pytest.approx([1 / 32, 1 / 32])
