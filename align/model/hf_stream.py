"""The policy's weights as a checkpoint would name them: layout-free (name, tensor) pairs.

Routed experts are split (``experts.3.gate_proj.weight``), adapters are merged, tied heads appear
once. This is what rollout engines and ``save_pretrained`` directories speak.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def hf_stream(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield (checkpoint name, detached tensor); views where possible, merged copies under LoRA.

    Args:
        model: a transformers model, or a peft model around one.
    """
    for name, tensor in _merged_parameters(model):
        if name.endswith(".experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            for index, expert in enumerate(tensor):  # [2I, H]
                gate, up = expert.chunk(2, dim=0)
                yield f"{stem}{index}.gate_proj.weight", gate
                yield f"{stem}{index}.up_proj.weight", up
        elif name.endswith(".experts.down_proj"):
            stem = name.removesuffix("down_proj")
            for index, expert in enumerate(tensor):  # [H, I]
                yield f"{stem}{index}.down_proj.weight", expert
        else:
            yield name, tensor


def _merged_parameters(model: Any) -> Iterator[tuple[str, Tensor]]:
    if not hasattr(model, "peft_config"):
        for name, parameter in model.named_parameters():
            yield name, parameter.detach()
        return
    base = model.get_base_model()
    layers = {name: module for name, module in base.named_modules() if hasattr(module, "lora_A")}
    for name, parameter in base.named_parameters():
        if ".lora_" in name:
            continue
        owner, _, leaf = name.rpartition(".")
        if owner.endswith(".base_layer"):
            owner = owner.removesuffix(".base_layer")
            tensor = parameter.detach()
            if leaf == "weight" and owner in layers:
                module = layers[owner]
                delta = sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
                tensor = (tensor.float() + delta.detach().float()).to(tensor.dtype)
            yield f"{owner}.{leaf}", tensor
        else:
            yield name, parameter.detach()
