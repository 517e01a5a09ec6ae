"""A push that travels in buckets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from align.errors import SyncError
from align.sync.arena import Arena
from align.sync.buckets import Buckets
from align.sync.transport import Outlets, Place

SIZES = [3, 1, 4, 1, 5, 9, 2, 6]
"""Words of fp32 of each tensor."""


def pairs(computed: list[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    for number, size in enumerate(SIZES):
        if computed is not None:
            computed.append(str(number))
        yield str(number), torch.full((size,), float(number))


def taken(nbytes: int | None) -> list[list[str]]:
    buckets = Buckets(pairs(), nbytes)
    found = []
    while not buckets.last:
        found.append([name for name, _ in buckets.take()])
    return found


def test_a_bucket_ends_with_the_tensor_that_fills_it() -> None:
    # 3 + 1 = 4 words fill 16 bytes; 4 do; 1 + 5; 9; 2 + 6.
    assert taken(16) == [["0", "1"], ["2"], ["3", "4"], ["5"], ["6", "7"]]
    assert taken(1) == [[str(number)] for number in range(8)]
    assert taken(None) == taken(4 * sum(SIZES)) == [[str(number) for number in range(8)]]


def test_no_more_than_a_bucket_and_the_next_tensor_is_computed() -> None:
    computed: list[str] = []
    buckets = Buckets(pairs(computed), 16)
    assert [name for name, _ in buckets.take()] == ["0", "1"]
    assert computed == ["0", "1", "2"]


def test_nothing_is_an_end() -> None:
    assert Buckets([], 16).last


def outlets() -> Outlets:
    return Outlets(Place("a", "cpu"), {0: Place("a", "cpu")}, torch.float32, [], host="127.0.0.1")


def push(ways: Outlets, buckets: Buckets, version: int, **how) -> list[dict[str, list[float]]]:
    ways.start(buckets, version, **({"whole": True, "required": frozenset()} | how))
    found = []
    while True:
        manifest = ways.publish()[0]
        assert (manifest.first, manifest.version) == (not found, version)
        found.append({name: tensor.tolist() for name, tensor in manifest.open()})
        ways.release()
        if manifest.last:
            return found


def test_buckets_are_read_one_after_the_other_from_the_same_memory() -> None:
    ways = outlets()
    found = push(ways, Buckets(pairs(), 16), 0)
    assert [list(each) for each in found] == taken(16)
    expected = {name: tensor.tolist() for name, tensor in pairs()}
    assert {name: values for each in found for name, values in each.items()} == expected
    arena = ways.senders["shared_memory"]
    assert isinstance(arena, Arena)
    assert arena._used == 2 * 64


def test_names_are_checked_over_all_buckets() -> None:
    ways = outlets()
    push(ways, Buckets(pairs(), 16), 0)
    with pytest.raises(
        SyncError, match="1 of the policy's tensors are missing from the push, the first is 3"
    ):
        push(ways, Buckets((pair for pair in pairs() if pair[0] != "3"), 16), 1)
    push(ways, Buckets(pairs(), 16), 1)  # what a push that failed had sent is forgotten
    only = [pair for pair in pairs() if pair[0] in "125"]
    assert len(push(ways, Buckets(only, 16), 2, whole=False, required={"1", "2"})) == 2
    with pytest.raises(SyncError, match="first is 2"):
        push(ways, Buckets([only[0], only[2]], 16), 3, whole=False, required={"1", "2"})


def test_a_push_that_was_cut_begins_again() -> None:
    ways = outlets()
    ways.start(Buckets(pairs(), 16), 0, whole=True, required=frozenset())
    ways.publish()
    assert len(push(ways, Buckets(pairs(), 16), 0)) == 5
