"""The shards of a policy over NCCL, in a world of one: log-probabilities and gradients of the whole one."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import part
import shapes
import torch
from torch import Tensor

from align.model.attention.shared_prefix import use_shared_prefix
from align.model.files.load import load_model
from align.model.logprobs import completion_logprobs

TOLERANCE = 1e-4
"""Of fp32 values, as a share of the tensor's largest."""


def main(device: str, report: part.Report) -> None:
    if importlib.util.find_spec("align.model.ranks") is None:
        raise part.Skipped("GRPO has no sharded trainer here (align.model.ranks)")
    import torch.distributed as distributed

    if device != "cpu":
        torch.cuda.set_device(0)
    backend = "gloo" if device == "cpu" else "nccl"
    distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    try:
        report.figures["backend"] = backend
        compare(device, report)
    finally:
        distributed.destroy_process_group()


def compare(device: str, report: part.Report) -> None:
    from align.model.ranks.layout import Ranks
    from align.model.ranks.shard import shard

    settings = shapes.recipe(shapes.QUICKSTART, policy={"dtype": "float32"})
    whole: Any = load_model(settings.policy, seed=0, device=device)
    use_shared_prefix(whole)
    sharded = copy.deepcopy(whole)
    shard(sharded, Ranks(), device=device, compute=torch.float32, completions=completion_logprobs)
    expected, wanted = passes(whole, lambda *rows: completion_logprobs(whole, *rows))
    logprobs, found = passes(sharded, sharded.completions)
    report.check(found.keys() == wanted.keys(), "other tensors have gradients")
    worst = max(apart(found[name], gradient) for name, gradient in wanted.items())
    gap = apart(logprobs, expected)
    report.figures |= {"log-probabilities, relative": gap, "worst gradient element": worst}
    report.check(gap <= TOLERANCE, f"a log-probability differs by {gap:.2g}, allowed {TOLERANCE:g}")
    report.check(worst <= TOLERANCE, f"a gradient differs by {worst:.2g}, allowed {TOLERANCE:g}")


def passes(model: Any, logprobs: Callable[..., Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities of a batch, and the gradients of their sum."""
    batch = shapes.batch(2, 4, 16, 32, vary=True)
    values = logprobs(batch.prompt_tokens, batch.completion_tokens).logprobs_BT
    values.sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    whole = {name: g.full_tensor() if hasattr(g, "full_tensor") else g for name, g in gradients.items()}
    return values.detach(), whole


def apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))


if __name__ == "__main__":
    part.run(main)
