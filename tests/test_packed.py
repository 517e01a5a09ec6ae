"""Rows of numbers through a pickle, as they go from process to process."""

from __future__ import annotations

import json
import operator
import pickle

import numpy as np
import pytest
import torch

from align.packed import mean, number_rows, token_rows
from align.reward.contract import Sample
from align.types import Completion, Group, Outcome, Prompt, SampleScore, TrainBatch

THIRD = 1 / 3


def sent(value):
    return pickle.loads(pickle.dumps(value, protocol=5))


def test_rows_arrive_in_one_array_and_read_like_lists() -> None:
    rows = sent(token_rows([[1, 2, 3], [], [151_643]]))
    assert rows == [[1, 2, 3], [], [151_643]]
    assert [1, 2, 3] == rows[0] != [1, 2]
    assert rows[0] != (1, 2, 3)  # as a list is not
    assert rows[0].array.base is rows[2].array.base  # nothing was copied
    assert [len(row) for row in rows] == [3, 0, 1]
    assert [bool(row) for row in rows] == [True, False, True]
    first = rows[0]
    assert (first[0], first[-1], first[1:]) == (1, 3, [2, 3])
    assert (operator.add(first, [4]), operator.add([0], first)) == ([1, 2, 3, 4], [0, 1, 2, 3])
    assert type(first[0]) is type(next(iter(first))) is int
    assert json.dumps(list(first)) == "[1, 2, 3]"
    assert torch.tensor(list(first)).tolist() == np.array(first).tolist() == [1, 2, 3]
    assert repr(first) == "[1, 2, 3]"
    assert first == pytest.approx([1, 2, 3 + 1e-9])  # others say themselves whether they equal it
    assert first != (1, 2, 3)
    with pytest.raises(TypeError):
        hash(first)
    assert sent(first) == [1, 2, 3]
    assert sent(first[1:]) == [2, 3]
    assert sent(token_rows([])) == []
    assert token_rows(None) is number_rows(None) is None


def test_numbers_come_back_exactly() -> None:
    rows = [[-THIRD, -1e-300, float("-inf")], [float(np.float32(-0.1))]]
    assert sent(number_rows(rows)) == rows
    assert np.isnan(sent(number_rows([[float("nan")]]))[0][0])
    assert (mean([]), mean([1.0, 2.0]), mean(sent(number_rows([[1.0, 2.0]]))[0])) == (None, 1.5, 1.5)


PROMPT = Prompt("p/0", ({"role": "user", "content": "?"},), [5, 6], {"answer": "4"}, "p", from_text=True)
EXPERTS = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def completion(index: int, **other) -> Completion:
    return Completion("p/0", index, [7, 8], [-THIRD, -0.5], "so", "stop", 3, 11, **other)


def test_a_group_comes_back_as_it_was() -> None:
    group = Group(PROMPT, [completion(0), completion(1, versions=((2, 1), (3, 1))), completion(2)])
    assert sent(group) == group
    assert sent(sent(group)) == group
    found = sent(Group(PROMPT, [completion(0, routed_experts=EXPERTS)])).completions[0]
    assert found.routed_experts.tolist() == EXPERTS.tolist()
    assert sent(Group(PROMPT, [])).completions == []


def test_a_batch_comes_back_as_it_was() -> None:
    batch = TrainBatch(
        ["p/0", "p/1"], [[1], [2, 3]], [[4, 5], [6]], [[-THIRD, -1.0], [-2.0]], [1.0, -1.0], [0.5] * 2
    )
    assert sent(batch) == batch
    batch.ref_logprobs = [[-1.0, -2.0], [-3.0]]
    batch.token_advantages = [[0.1, 0.2], [THIRD]]
    found = sent(batch)
    assert found == batch
    assert found.old_logprobs is None
    assert found.select([1]).completion_tokens == [[6]]


def test_others_come_back_as_they_were() -> None:
    outcome = Outcome("ok", 0.5, {"a": 1.0}, "x", 0.1, ((1, 2.0),))
    for value in (PROMPT, outcome, SampleScore("p/0", 1, None, {"t": outcome})):
        assert sent(value) == value
    sample = Sample.of(PROMPT, sent(Group(PROMPT, [completion(0)])).completions[0], max_new_tokens=4)
    assert sent(sample) == sample
    assert type(sent(sample).token_ids) is list  # functions of other toolkits want one
