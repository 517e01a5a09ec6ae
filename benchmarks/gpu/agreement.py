"""Loss and gradients of one GRPO update on the GPU against those of the CPU.

A tiny DeepSeek-V2 in fp32 on both, each routing by itself; and in bf16 on the GPU against fp32 there, both
sending every token to the same experts (a bf16 router picks others where two are nearly level). All start
from one set of weights that are exact in bf16.
"""

from __future__ import annotations

import random

import numpy as np
import part
import shapes
import torch
from torch import Tensor

from align.model.policy import PolicyModel
from align.types import TrainBatch

FP32 = 1e-4
"""Largest difference of fp32 gradients, as a share of the tensor's largest value."""
BF16 = 0.06
"""The same in bf16, whose values are 0.004 to 0.008 of their size apart; a CPU came to 0.014."""
BF16_NORM = 0.05
"""Length of the difference in bf16, as a share of the gradient's; a CPU came to 0.014."""

Gradients = dict[str, Tensor]


def main(device: str, report: part.Report) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    batch = shapes.batch(4, 4, 24, 32, vary=True)
    half = policy("bfloat16", device, replay="rollout")
    weights = {name: p.detach().float().cpu() for name, p in half.model.named_parameters()}
    host, there = (policy("float32", where, weights) for where in ("cpu", device))
    make_up_logprobs(batch, host.logprobs(batch))
    expected, wanted = update(host, batch)
    loss, found = update(there, batch)
    compare(report, "fp32, CPU and GPU", (loss, found), (expected, wanted), FP32)

    batch.routed_experts = make_up_experts(batch, half)
    full = policy("float32", device, weights, replay="rollout")
    expected, wanted = update(full, batch)
    loss, found = update(half, batch)
    compare(report, "bf16 and fp32", (loss, found), (expected, wanted), BF16, BF16_NORM)


def policy(dtype: str, device: str, weights: Gradients | None = None, replay: str = "off") -> PolicyModel:
    settings = shapes.recipe(
        shapes.QUICKSTART,
        policy={"dtype": dtype},
        grpo={"beta": 0.1, "replay": replay},
        optim={"lr": 1e-3},
    )
    made = PolicyModel(settings, device=device)
    if weights is not None:
        with torch.no_grad():
            for name, parameter in made.model.named_parameters():
                parameter.copy_(weights[name])
    return made


def make_up_logprobs(batch: TrainBatch, own: list[list[float]]) -> None:
    """Near the policy's own, so that ratios, importance weights and the KL term all count."""
    source = random.Random(1)

    def near(spread: float) -> list[list[float]]:
        return [[each + source.gauss(0, spread) for each in row] for row in own]

    batch.rollout_logprobs, batch.old_logprobs, batch.ref_logprobs = near(0.1), near(0.05), near(0.3)


def make_up_experts(batch: TrainBatch, of: PolicyModel) -> list[np.ndarray]:
    """K different experts for every token and MoE layer, the same for one prompt's tokens."""
    config = of.model.config
    layers = config.num_hidden_layers - config.first_k_dense_replace
    shape = (layers, config.n_routed_experts)
    source = np.random.default_rng(2)
    prompts: dict[str, np.ndarray] = {}

    def some(count: int) -> np.ndarray:
        order = source.random((count, *shape)).argsort(-1)
        return order[..., : config.num_experts_per_tok].astype(np.uint8)

    rows = []
    for name, prompt, completion in zip(
        batch.prompt_ids, batch.prompt_tokens, batch.completion_tokens, strict=True
    ):
        shared = prompts.setdefault(name, some(len(prompt)))
        rows.append(np.concatenate([shared, some(len(completion) - 1)]))
    return rows


def update(policy: PolicyModel, batch: TrainBatch) -> tuple[float, Gradients]:
    """The loss, and the gradients as they are before clipping."""
    kept: Gradients = {}
    step = policy.optimizer.step

    def keep(lr: float, when: str = "") -> float:
        for name, master in policy.optimizer.master.items():
            if master.grad is not None:
                kept[name] = master.grad.detach().float().cpu()
        return step(lr, when)

    policy.optimizer.step = keep  # type: ignore[method-assign]
    return policy.update(batch)["train/loss"], kept


def compare(
    report: part.Report,
    what: str,
    found: tuple[float, Gradients],
    wanted: tuple[float, Gradients],
    largest: float,
    length: float | None = None,
) -> None:
    """Hold loss and gradients against a tolerance each."""
    loss = abs(found[0] - wanted[0]) / max(abs(wanted[0]), 1e-3)
    elements: dict[str, float] = {}
    lengths: dict[str, float] = {}
    for name, right in wanted[1].items():
        gap = found[1][name] - right
        elements[name] = float(gap.abs().max() / right.abs().max().clamp_min(1e-12))
        lengths[name] = float(gap.norm() / right.norm().clamp_min(1e-12))
    worst, longest = (max(each, key=each.__getitem__) for each in (elements, lengths))
    report.figures |= {
        f"{what}: loss, relative": loss,
        f"{what}: worst gradient element": elements[worst],
        f"{what}: in": worst,
        f"{what}: worst gradient, length": lengths[longest],
    }
    report.check(found[1].keys() == wanted[1].keys(), f"{what}: other tensors have gradients")
    report.check(loss <= largest, f"{what}: the loss differs by {loss:.2g}, allowed {largest:g}")
    report.check(
        elements[worst] <= largest, f"{what}: {worst} differs by {elements[worst]:.2g}, allowed {largest:g}"
    )
    if length is not None:
        report.check(
            lengths[longest] <= length,
            f"{what}: {longest} differs in length by {lengths[longest]:.2g}, allowed {length:g}",
        )


if __name__ == "__main__":
    part.run(main)
