"""Policy, optimiser and reference leave the GPU and come back: same values, memory freed, training goes on.

The learning rate is so small that an update moves no weight by more than rounding; so the gradient's norm
after the round trips must be that from before. Were a hook of a moved weight lost, it would be another.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import part
import shapes
import torch
from torch import Tensor

from align.model.offload import Offload, tensors_of
from align.model.policy import PolicyModel

MOVED = ("policy", "optimizer", "reference")
FREED = 0.95
"""Least share of a part's bytes that the allocator must have back."""
NORM = 1e-2
"""Largest relative difference of the norms; bf16 sums on a GPU are not in one order."""


def main(device: str, report: part.Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = shapes.moderate(Path(folder), device)
        policy = shapes.build(shapes.recipe(path, grpo={"beta": 0.04}, optim={"lr": 1e-12}), device)
    batch = shapes.batch(4, 4, 16, 32, vary=True)
    batch.ref_logprobs = policy.ref_logprobs(batch)
    before = policy.update(batch)["train/grad_norm"]
    offload = Offload(policy, device)
    for name in MOVED:
        round_trip(offload, policy, name, device, report)
    together(offload, device, report)
    after = policy.update(batch)["train/grad_norm"]
    report.figures |= {"gradient norm before": before, "gradient norm after": after}
    report.check(
        before > 0 and abs(after - before) <= NORM * before,
        f"the gradient's norm was {before:.4g} before the moves and is {after:.4g} after them",
    )


def round_trip(offload: Offload, policy: PolicyModel, name: Any, device: str, report: part.Report) -> None:
    """One part goes and comes back."""
    tensors = list(tensors_of(policy, name))
    kept = [tensor.detach().clone() for tensor in tensors]
    nbytes = sum(tensor.nbytes for tensor in tensors)
    allocated, free = memory(device)
    slept = timed(device, lambda: offload.sleep(name))
    less, more = memory(device)
    report.figures[f"{name}: GiB"] = nbytes / 2**30
    if device != "cpu":
        report.check(
            all(tensor.device.type == "cpu" for tensor in tensors), f"{name}: a tensor stayed on the GPU"
        )
        report.check(
            allocated - less >= FREED * nbytes, f"{name}: {allocated - less} of {nbytes} bytes are freed"
        )
        report.figures |= {
            f"{name}: freed by the allocator, GiB": (allocated - less) / 2**30,
            f"{name}: freed on the device, GiB": (more - free) / 2**30,
        }
    woke = timed(device, lambda: offload.wake(name))
    report.check(
        all(tensor.device.type == device for tensor in tensors), f"{name}: a tensor is not back on the device"
    )
    lost = sum(not same_bits(*pair) for pair in zip(tensors, kept, strict=True))
    report.check(not lost, f"{name}: {lost} of {len(tensors)} tensors have other values")
    report.figures |= {f"{name}: sleep, s": slept, f"{name}: wake, s": woke}


def together(offload: Offload, device: str, report: part.Report) -> None:
    """All at once, as in the rollout of a scheduled run."""
    for name in MOVED:
        offload.sleep(name)
    if device != "cpu":
        report.figures["left on the device while all sleep, GiB"] = memory(device)[0] / 2**30
    for name in MOVED:
        offload.wake(name)


def same_bits(left: Tensor, right: Tensor) -> bool:
    bits = [each.detach().reshape(-1).view(torch.uint8) for each in (left, right)]
    return torch.equal(*bits)


def memory(device: str) -> tuple[int, int]:
    """Bytes: (held by this process's tensors, free on the device)."""
    if device == "cpu":
        return 0, 0
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]


def timed(device: str, move: Any) -> float:
    shapes.synchronize(device)
    begin = time.perf_counter()
    move()
    shapes.synchronize(device)
    return time.perf_counter() - begin


if __name__ == "__main__":
    part.run(main)
