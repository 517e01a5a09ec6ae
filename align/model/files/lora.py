"""Low-rank adapters through peft."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from align.config.policy import LoraConfig
from align.errors import RecipeError
from align.model.experts.routers import is_moe
from align.seed import derive_seed

_ATTENTION = re.compile(r"\.(?:\w+_)?att(?:n|ention)\.")
"""Inside a layer's attention: ``self_attn``, ``linear_attn``, ``self_attention``."""


def add_lora(model: Any, lora: LoraConfig) -> Any:
    """Wrap ``model`` so that only adapters train.

    Dense models: every linear layer but the output head. MoE models, of whichever family: the
    attention's linear layers only. For these, peft maps the names of all MLP layers to fused experts
    and router, whose adapters no rollout engine follows.

    Raises:
        RecipeError: a target module is no linear layer of the model.
    """
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    settings = PeftLora(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(model, lora),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings, autocast_adapter_dtype=False)


def fresh_adapter(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """What an adapter begins with: A uniform in ±1/√(its inputs), as peft has it, and B zero, so that
    together they change nothing. Its name and the seed say all, so that a rank can make its part alone.

    Args:
        name: of the parameter; holds ``lora_A`` or ``lora_B``.
        shape: [rank, inputs] or [outputs, rank].
        seed: of the run.

    Returns:
        fp32, in main memory.
    """
    if ".lora_B." in name:
        return torch.zeros(*shape)
    bound = 1 / math.sqrt(shape[1])
    chance = torch.Generator().manual_seed(derive_seed(seed, "adapters", name))
    return torch.empty(*shape).uniform_(-bound, bound, generator=chance)


def adapters(model: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """The trained parameters of :func:`add_lora`'s model."""
    for name, parameter in model.get_base_model().named_parameters():
        if ".lora_" in name:
            yield name, parameter


def begin_adapters(model: Any, seed: int) -> None:
    """Give all adapters of a model the values of :func:`fresh_adapter`."""
    with torch.no_grad():
        for name, parameter in adapters(model):
            parameter.copy_(fresh_adapter(name, parameter.shape, seed))


def _targets(model: Any, lora: LoraConfig) -> list[str]:
    head = model.get_output_embeddings()
    moe = is_moe(model.config)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and not (moe and not _ATTENTION.search(name))
    ]
    if lora.target_modules == "all-linear":
        return linear
    leaves = {name.rpartition(".")[2] for name in linear}
    unknown = [target for target in lora.target_modules if target not in leaves]
    if unknown:
        raise RecipeError(
            f"no linear layer called {unknown[0]!r} can get an adapter in this model",
            key="policy.lora.target_modules",
            remedy=f"choose from {', '.join(sorted(leaves))}, or use all-linear",
        )
    return [name for name in linear if name.rpartition(".")[2] in lora.target_modules]
