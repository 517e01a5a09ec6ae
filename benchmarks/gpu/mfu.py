"""How much of the device's bf16 peak does an update of DeepSeek-V2-Lite's shape reach?

As many of its layers as fit are trained in full: weights, fp32 masters and gradients, and two moments are 18
bytes a parameter; the rest of the memory is for activations, nothing is computed twice. FLOP count 6 per
active weight and token, the output head's for completion tokens alone; attention's scores are extra and do
not count. MFU holds them against the peak that `perf/mfu` of a run takes (`align.model.peak`).
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import part
import shapes
import torch

from align.model.peak import GPUS, peak_flops
from align.model.policy import PolicyModel
from align.plan.params import Shape, read_shape
from align.plan.source import read_config
from align.types import TrainBatch

HELD = 18
"""Bytes of a parameter during an update."""
SHARE = 0.7
"""Of the free memory, for what is held; the rest is for activations."""
WARM, TIMED = 2, 5


@dataclass(frozen=True, slots=True)
class Work:
    """One update: groups × members completions."""

    groups: int
    members: int
    prompt: int
    completion: int

    def batch(self) -> TrainBatch:
        return shapes.batch(self.groups, self.members, self.prompt, self.completion)


def main(device: str, report: part.Report) -> None:
    # Two groups of 128 + 8 · 495 tokens fill a micro-batch of 8,192 on a GPU.
    work = Work(16, 8, 128, 496) if device != "cpu" else Work(2, 4, 8, 16)
    peak, source = find_peak(device, report)
    with tempfile.TemporaryDirectory() as folder:
        layers = fitting(torch.cuda.mem_get_info()[0]) if device != "cpu" else 3
        while not measure(model(Path(folder), layers, device), work, device, peak, report):
            print(f"{layers} layers do not fit")
            gc.collect()
            torch.cuda.empty_cache()
            layers -= max(1, layers // 5)
            if layers < 2:
                raise part.Skipped("not even two layers of V2-Lite fit")
    report.figures |= {"layers": layers, "peak": source}


def model(folder: Path, layers: int, device: str) -> Path:
    if device == "cpu":
        return shapes.QUICKSTART
    return shapes.v2_lite(folder / str(layers), layers)


def fitting(free: int) -> int:
    """Layers of V2-Lite that can be trained in so many bytes."""
    config = read_config(shapes.V2_LITE)
    fit = [
        layers
        for layers in range(2, config["num_hidden_layers"] + 1)
        if HELD * read_shape(config | {"num_hidden_layers": layers}).total <= SHARE * free
    ]
    if not fit:
        raise part.Skipped(f"{free / 2**30:.0f} GiB are free, too few for two layers of V2-Lite")
    return fit[-1]


def measure(path: Path, work: Work, device: str, peak: float, report: part.Report) -> bool:
    """Time updates of a policy; False when it does not fit."""
    seconds: list[float] = []
    stepping: list[float] = []
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    try:
        policy = shapes.build(shapes.recipe(path, grpo={"beta": 0.0}, optim={"lr": 1e-6}), device)
        batch = work.batch()
        for _ in range(WARM + TIMED):
            whole, step, metrics = timed_update(policy, batch, device)
            seconds.append(whole)
            stepping.append(step)
    except torch.OutOfMemoryError:
        return False
    shape = read_shape(read_config(str(path)))
    fed, answered = metrics["train/fed_tokens"], sum(map(len, batch.completion_tokens))
    flop = flop_of(shape, fed, answered)
    whole, step = (statistics.median(each[WARM:]) for each in (seconds, stepping))
    report.figures |= {
        "parameters, billions": shape.total / 1e9,
        "active parameters without embedding, billions": shape.active_without_embedding / 1e9,
        "tokens fed in an update": int(fed),
        "update, s": whole,
        "of it clipping and AdamW, s": step,
        "tokens/s": fed / whole,
        "FLOP/s": flop / whole,
        "MFU": flop / whole / peak,
        "MFU without clipping and AdamW": flop / (whole - step) / peak,
    }
    if device != "cpu":
        report.figures["peak memory, GiB"] = torch.cuda.max_memory_allocated() / 2**30
    report.check(metrics["train/grad_norm"] > 0, "the gradient is zero")
    return True


def flop_of(shape: Shape, fed: float, answered: int) -> float:
    """Of one update: forward and backward."""
    return 6 * ((shape.active_without_embedding - shape.embedding) * fed + shape.embedding * answered)


def timed_update(
    policy: PolicyModel, batch: TrainBatch, device: str
) -> tuple[float, float, dict[str, float]]:
    """(seconds of the update, seconds of the optimiser in it, metrics)."""
    spent = 0.0
    step = policy.optimizer.step

    def timed(lr: float, when: str = "") -> float:
        nonlocal spent
        shapes.synchronize(device)
        begin = time.perf_counter()
        norm = step(lr, when)
        shapes.synchronize(device)
        spent = time.perf_counter() - begin
        return norm

    policy.optimizer.step = timed  # type: ignore[method-assign]
    shapes.synchronize(device)
    begin = time.perf_counter()
    try:
        metrics = policy.update(batch)
        shapes.synchronize(device)
    finally:
        policy.optimizer.step = step  # type: ignore[method-assign]
    return time.perf_counter() - begin, spent, metrics


def find_peak(device: str, report: part.Report) -> tuple[float, str]:
    """FLOP/s that count as all, and where they are from."""
    report.figures["bf16 product of random numbers, FLOP/s"] = product(
        8192 if device != "cpu" else 512, device
    )
    peak = peak_flops(device, torch.bfloat16)
    known = device != "cpu" and any(name in torch.cuda.get_device_name() for name in GPUS)
    return peak, f"{peak / 1e12:.1f} TFLOP/s, {'of the data sheet' if known else 'measured'}"


def product(size: int, device: str) -> float:
    """Best FLOP/s of a square bf16 product of random numbers, ten at a time."""
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    best = 0.0
    for _ in range(4):
        shapes.synchronize(device)
        begin = time.perf_counter()
        for _ in range(10):
            left @ right
        shapes.synchronize(device)
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - begin))
    return best


if __name__ == "__main__":
    part.run(main)
