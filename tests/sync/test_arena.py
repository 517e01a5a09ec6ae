import multiprocessing

import pytest
import torch

from align.config.rollout import SyncConfig
from align.errors import SyncError
from align.sync.arena import Arena, Manifest, read
from align.sync.verify import compare_probe


def pairs():
    generator = torch.Generator().manual_seed(0)
    yield "a.weight", torch.randn(3, 5, generator=generator)
    yield "b.bias", torch.randn(7, generator=generator)
    yield "c.weight", torch.randn(4, 6, generator=generator).T  # not contiguous


def _read_elsewhere(manifest: Manifest, queue) -> None:
    queue.put({name: tensor.float().tolist() for name, tensor in read(manifest)})


def test_another_process_reads_the_same_values():
    arena = Arena(torch.bfloat16)
    manifest = arena.publish(pairs(), 3)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    reader = context.Process(target=_read_elsewhere, args=(manifest, queue))
    reader.start()
    found = queue.get(timeout=60)
    reader.join()
    assert manifest.version == 3
    for name, tensor in pairs():
        assert found[name] == tensor.bfloat16().float().tolist()


def test_publishing_again_reuses_the_block():
    arena = Arena(torch.float32)
    first = arena.publish(pairs(), 0)
    second = arena.publish(((name, tensor + 1) for name, tensor in pairs()), 1)
    assert (first.path, first.nbytes, first.specs) == (second.path, second.nbytes, second.specs)
    assert first.digests != second.digests
    for (_, expected), (_, found) in zip(pairs(), read(second), strict=True):
        torch.testing.assert_close(found, expected + 1)


def test_a_flipped_bit_is_named():
    arena = Arena(torch.float32)
    manifest = arena.publish(pairs(), 0)
    spec = manifest.specs[1]
    arena._block[spec.offset + 2] ^= 1
    with pytest.raises(SyncError, match=r"checksum of b\.bias"):
        list(read(manifest))


def test_a_changed_layout_is_refused():
    arena = Arena(torch.float32)
    arena.publish(pairs(), 0)
    with pytest.raises(SyncError, match="names or shapes"):
        arena.publish(list(pairs())[:2], 1)


def test_probe_within_and_beyond_tolerance():
    assert compare_probe([-1.0, -2.0], [-1.1, -2.0], SyncConfig(), "bfloat16") == pytest.approx((0.05, 0.1))
    with pytest.raises(SyncError, match="disagree"):
        compare_probe([-1.0, -2.0], [-1.1, -2.0], SyncConfig(), "float32")
    with pytest.raises(SyncError, match="disagree"):
        compare_probe([float("nan")], [-1.0], SyncConfig(), "bfloat16")
