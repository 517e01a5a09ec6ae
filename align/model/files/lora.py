"""Low-rank adapters through peft."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from align.config.policy import LoraConfig
from align.errors import RecipeError
from align.model.experts.routers import is_moe

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
