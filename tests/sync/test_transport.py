"""Which way each engine's weights take, and from which rank."""

import torch

from align.sync.broadcast import Rendezvous
from align.sync.manifest import Manifest
from align.sync.transport import Outlets, Place, choose_transport, who_serves


def test_the_transport_follows_from_where_both_are():
    here, there = Place("a", "cpu"), Place("b", "cpu")
    assert choose_transport(here, here) == "shared_memory"
    assert choose_transport(here, there) == "broadcast"
    assert choose_transport(Place("a", "cuda"), Place("a", "cuda")) == "cuda_ipc"
    assert choose_transport(Place("a", "cuda"), Place("b", "cuda")) == "broadcast"
    assert choose_transport(Place("a", "cuda"), Place("a", "cpu")) == "shared_memory"


def test_each_engine_is_served_by_the_rank_that_is_nearest() -> None:
    ranks = [Place("a", "cuda", "g0"), Place("a", "cuda", "g1"), Place("b", "cuda", "g2")]
    engines = [
        Place("a", "cuda", "g1"),
        Place("a", "cuda", "g9"),
        Place("b", "cuda", "g2"),
        Place("c", "cuda"),
    ]
    # On its GPU; of its machine the first; on its GPU; else the first of all.
    assert who_serves(ranks, engines) == [1, 0, 2, 0]


def test_engines_read_one_block_or_have_their_places_in_one_broadcast() -> None:
    here = Place("a", "cpu")
    engines = {
        0: Place("a", "cpu"),
        2: Place("b", "cpu", workers=2),
        5: Place("a", "cpu"),
        7: Place("c", "cpu"),
    }
    outlets = Outlets(here, engines, torch.float32, [], host="127.0.0.1")
    assert outlets.transports == {0: "shared_memory", 2: "broadcast", 5: "shared_memory", 7: "broadcast"}
    assert list(outlets.senders) == ["shared_memory", "broadcast"]
    arena = outlets.senders["shared_memory"].publish([("a.weight", torch.ones(3))], 0)
    assert outlets._for_engine(0, arena) is arena
    meeting = Rendezvous("127.0.0.1", 1, 4, "cpu")
    sent = Manifest(0, True, arena.specs, arena.digests, meeting)
    # Rank 0 sends; workers 1 and 2 are the second engine's, 3 that of the fourth.
    assert [outlets._for_engine(each, sent).carrier.first for each in (2, 7)] == [0, 2]
    assert outlets.senders["broadcast"]._meeting.size == 4
