"""The training side in a process of its own: a policy, and the way of its weights to another process."""

from __future__ import annotations

import pickle
import time
from hashlib import blake2b
from pathlib import Path

import moves
import shapes
import torch
from torch import Tensor

from align.model.offload import Offload, tensors_of
from align.sync.transport import Outlets, Place


class Trainer:
    """What the training actor of a run does for a push, without Ray."""

    def __init__(self, path: Path, device: str, lr: float = 1e-3) -> None:
        settings = shapes.recipe(path, grpo={"beta": 0.0}, optim={"lr": lr})
        self.device = device
        self.policy = shapes.build(settings, device)
        self.offload = Offload(self.policy, device)
        here = Place("this machine", device, "this GPU" if device != "cpu" else "")
        self.outlets = Outlets(
            here, {0: here}, torch.bfloat16, self.policy.model.parameters(), host="127.0.0.1"
        )

    def publish(self, version: int) -> tuple[bytes, float]:
        """(the manifest as it travels, seconds)."""
        shapes.synchronize(self.device)
        begin = time.perf_counter()
        manifests = self.outlets.publish(self.policy.weights(), version, whole=True, required=frozenset())
        seconds = time.perf_counter() - begin
        return pickle.dumps(manifests[0]), seconds

    def hashes(self) -> dict[str, bytes]:
        """Of the bytes of every weight, taken in main memory."""
        return {name: hash_of(tensor) for name, tensor in self.policy.weights()}

    def release(self) -> None:
        self.outlets.release()

    def update(self) -> float:
        """Train on a batch; the norm of the gradient."""
        return self.policy.update(shapes.batch(2, 4, 16, 32))["train/grad_norm"]

    def probe(self, tokens: list[int]) -> list[float]:
        return self.policy.probe(tokens)

    def leave(self) -> dict[str, int]:
        """The weights leave the GPU and come back: their bytes, and how many were freed meanwhile."""
        nbytes = sum(tensor.nbytes for tensor in tensors_of(self.policy, "policy"))
        allocated, free = moves.memory(self.device)
        self.offload.sleep("policy")
        less, more = moves.memory(self.device)
        self.offload.wake("policy")
        return {"bytes": nbytes, "allocator": allocated - less, "device": more - free}

    def transport(self) -> str:
        """The way that was chosen to a process on the same device."""
        return self.outlets.transports[0]


def hash_of(tensor: Tensor) -> bytes:
    data = tensor.detach().contiguous().view(-1).view(torch.uint8).cpu()
    return blake2b(data.numpy().data, digest_size=16).digest()
