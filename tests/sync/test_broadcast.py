"""The transport between machines, over the loopback: Gloo here stands for NCCL."""

import multiprocessing

import pytest
import torch

from align.errors import SyncError
from align.sync import broadcast
from align.sync.broadcast import Broadcast
from align.sync.manifest import Manifest


def pairs(add: float = 0.0):
    for index in range(6):
        yield f"layers.{index}.weight", torch.full((10 + index, 3), index + add)


def _receive(manifests, answers) -> None:
    broadcast.BUCKET = 256
    while (manifest := manifests.get()) is not None:
        try:
            answers.put({name: tensor.float().tolist() for name, tensor in manifest.open(rank=0)})
        except SyncError as error:
            answers.put(str(error))


@pytest.fixture
def receiver():
    context = multiprocessing.get_context("spawn")
    manifests, answers = context.Queue(), context.Queue()
    process = context.Process(target=_receive, args=(manifests, answers))
    process.start()

    def receive(manifest: Manifest):
        manifests.put(manifest)
        return answers.get(timeout=60)

    yield receive
    manifests.put(None)
    process.join()


def test_whole_and_partial_pushes_arrive_and_are_checked(receiver, monkeypatch):
    monkeypatch.setattr(broadcast, "BUCKET", 256)  # several messages, some of one tensor
    sender = Broadcast(torch.bfloat16, host="127.0.0.1", device="cpu", receivers=1)
    found = receiver(sender.publish(pairs(), 0))
    assert found == {name: tensor.tolist() for name, tensor in pairs()}
    found = receiver(sender.publish(list(pairs(0.5))[2:3], 1, whole=False))
    assert found == {name: tensor.tolist() for name, tensor in list(pairs(0.5))[2:3]}
    manifest = sender.publish(pairs(), 2)
    wrong = Manifest(2, True, manifest.specs, (*manifest.digests[:-1], 0), manifest.carrier)
    assert "checksum of layers.5.weight" in receiver(wrong)
