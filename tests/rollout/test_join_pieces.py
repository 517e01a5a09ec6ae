"""The experts of a request, put together from the batches that it was in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from align.errors import EngineError
from align.rollout.routing_capture import Experts, join_pieces


def piece(start: int, values: Sequence[int]) -> tuple[int, Experts]:
    return start, np.array(values, np.uint8)[:, None, None]


def test_prefill_and_decoded_tokens_follow_one_another() -> None:
    whole = join_pieces([piece(0, [1, 2, 3]), piece(3, [4]), piece(4, [5])], 5)
    assert whole[:, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert whole.dtype == np.uint8


def test_a_preempted_request_keeps_what_was_computed_last() -> None:
    whole = join_pieces([piece(0, [1, 2]), piece(2, [3]), piece(0, [7, 8, 9]), piece(3, [4])], 4)
    assert whole[:, 0, 0].tolist() == [7, 8, 9, 4]


def test_tokens_beyond_the_completion_are_dropped() -> None:
    assert join_pieces([piece(0, [1, 2, 3]), piece(3, [4])], 2)[:, 0, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("pieces", "covered"),
    [([], 0), ([piece(0, [1, 2])], 2), ([piece(1, [1, 2])], 2), ([piece(0, [1]), piece(2, [3])], 2)],
)
def test_a_token_without_experts_is_one_error(pieces: list[tuple[int, Experts]], covered: int) -> None:
    with pytest.raises(EngineError, match=rf"{covered} of 3 tokens"):
        join_pieces(pieces, 3)
