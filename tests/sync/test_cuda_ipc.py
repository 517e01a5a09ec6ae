"""What the sender holds on to, on a CPU: torch's CUDA calls are left out, the sharing itself is not tried."""

import gc
import weakref

import pytest
import torch

from align.sync.cuda_ipc import CudaHandles, CudaIpc
from align.sync.manifest import Manifest


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """CUDA calls in their order."""
    made: list[str] = []
    monkeypatch.setattr(torch.cuda, "ipc_collect", lambda: made.append("collect"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: made.append("synchronize"))
    return made


def publish(sender: CudaIpc, weight: torch.Tensor, merged: list[torch.Tensor], version: int) -> Manifest:
    """The policy's own tensor, and one that exists for the push alone."""
    return sender.publish([("a", weight), ("b", merged.pop())], version)


def test_nothing_of_a_push_is_held_after_its_release(calls):
    sender, weight, merged = CudaIpc(torch.float32), torch.arange(6.0), [torch.ones(3)]
    passing = weakref.ref(merged[0])
    manifest = publish(sender, weight, merged, 0)
    gc.collect()
    assert passing() is not None  # the engine has yet to read it
    assert sender._kept[0].data_ptr() == weight.data_ptr()  # itself, not a copy
    assert calls == ["collect", "synchronize"]

    sender.release()
    del manifest
    gc.collect()
    assert sender._kept == []
    assert passing() is None
    assert calls == ["collect", "synchronize", "collect"]


def test_a_policy_that_moves_away_leaves_its_memory_held_only_until_the_release(calls):
    sender, weight = CudaIpc(torch.float32), torch.nn.Parameter(torch.arange(6.0))
    sender.publish([("a", weight.detach())], 0)
    weight.data = weight.data.clone()  # as ``offload.relocate`` does
    assert sender._kept[0].data_ptr() != weight.data_ptr()
    view = weakref.ref(sender._kept[0])  # nothing else has the memory from before
    assert view() is not None
    sender.release()
    assert view() is None


def test_an_unloaded_push_is_let_go_by_the_next(calls):
    sender, weight = CudaIpc(torch.float32), torch.arange(6.0)
    publish(sender, weight, [torch.ones(3)], 0)
    first = weakref.ref(sender._kept[1])
    publish(sender, weight, [torch.zeros(3)], 1)
    assert first() is None
    assert len(sender._kept) == 2


def test_tensors_of_one_storage_share_its_handle(calls):
    sender, weight = CudaIpc(torch.float32), torch.arange(12.0)
    manifest = sender.publish([("a", weight[:4]), ("b", weight[4:])], 0)
    assert isinstance(manifest.carrier, CudaHandles)
    assert len(manifest.carrier.storages) == 1
    assert manifest.carrier.places == ((0, 0), (0, 16))
