"""The digest of weights where they are: on the GPU the same as on the CPU, and as plain integers give it."""

from __future__ import annotations

import time

import part
import shapes
import torch
from torch import Tensor

from align.sync import manifest
from align.sync.manifest import fold

STEP = 0x1E3779B97F4A7C16
"""Word i is weighed by i · STEP + 1, modulo 2^64."""


def main(device: str, report: part.Report) -> None:
    torch.manual_seed(0)
    count = 0
    for name, tensor in samples():
        there = tensor.to(device)
        if name.startswith("view"):  # a copy would begin at 0
            there = torch.cat([there.new_zeros(3), there])[3:]
        expected = fold(tensor)
        report.check(fold(there) == expected, f"{name}: the folds differ")
        if tensor.numel() < 2000:
            report.check(plain(tensor) == expected, f"{name}: not the sum of its weighed words")
        flat = there.clone().view(-1).view(torch.uint8)
        flat[len(flat) // 2] ^= 1
        report.check(fold(flat) != expected, f"{name}: one changed bit goes unseen")
        count += 1
    report.figures["tensors"] = count
    speed(device, report)


def samples() -> list[tuple[str, Tensor]]:
    """Types, odd lengths, and more words than are folded at once."""
    found = [
        (f"{dtype}, {length}", torch.randn(length).to(dtype))
        for dtype in (torch.bfloat16, torch.float32)
        for length in (1, 2, 7, 1000, 4097)
    ]
    found += [("int64", torch.arange(-500, 500)), ("bool", torch.rand(333) < 0.5)]
    found += [
        ("view, bf16", torch.randn(100).bfloat16()),
        ("view, bytes", torch.arange(77, dtype=torch.uint8)),
    ]
    long = manifest._FOLDED_AT_ONCE + 12345
    found.append(("long", torch.randint(-(2**31), 2**31 - 1, (long,), dtype=torch.int32)))
    return found


def plain(tensor: Tensor) -> int:
    """The fold by Python's integers."""
    data = tensor.view(-1).view(torch.uint8)
    words = (data.view(torch.int32) if len(data) % 4 == 0 else data).tolist()
    return sum(word * (place * STEP + 1) for place, word in enumerate(words)) % 2**64


def speed(device: str, report: part.Report) -> None:
    data = torch.randint(-(2**31), 2**31 - 1, (1 << (28 if device != "cpu" else 20),), dtype=torch.int32)
    data = data.to(device)
    fold(data)
    shapes.synchronize(device)
    begin = time.perf_counter()
    fold(data)
    report.figures["GB/s"] = data.nbytes / (time.perf_counter() - begin) / 1e9
    if device != "cpu":
        report.figures["memory of one fold, MiB"] = (
            torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
        ) / 2**20


if __name__ == "__main__":
    part.run(main)
