"""The policy's weights as a checkpoint would name them: layout-free (name, tensor) pairs.

Routed experts are split (``experts.3.gate_proj.weight``), adapters are merged, tied heads appear
once. This is what rollout engines and ``save_pretrained`` directories speak.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

import torch
from torch import Tensor


def hf_stream(model: Any, *, changed_only: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Yield (checkpoint name, detached tensor); views where possible, merged copies under LoRA.

    Args:
        model: a transformers model, or a peft model around one.
        changed_only: only what training changes. Under LoRA: each adapted layer together with its
            neighbours in the block, which engines fuse with it (q with k and v, gate with up).
    """
    blocks = {_block(name) for name in adapted_tensors(model)} if changed_only else None
    for name, tensor in _merged_parameters(model, blocks):
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


def adapted_tensors(model: Any) -> set[str]:
    """Checkpoint names of the weights that adapters are merged into; empty without LoRA."""
    if not hasattr(model, "peft_config"):
        return set()
    return {f"{name}.weight" for name, module in model.get_base_model().named_modules() if _adapted(module)}


def _adapted(module: Any) -> bool:
    return hasattr(module, "lora_A")


def _block(name: str) -> str:
    """``layers.0.self_attn`` of ``layers.0.self_attn.q_proj.weight``."""
    return name.rsplit(".", 2)[0]


def _merged_parameters(model: Any, blocks: Set[str] | None) -> Iterator[tuple[str, Tensor]]:
    if not hasattr(model, "peft_config"):
        for name, parameter in model.named_parameters():
            yield name, parameter.detach()
        return
    base = model.get_base_model()
    layers = {name: module for name, module in base.named_modules() if _adapted(module)}
    for name, parameter in base.named_parameters():
        left_out = blocks is not None and _block(name.replace(".base_layer.", ".")) not in blocks
        if ".lora_" in name or left_out:
            continue
        owner, _, leaf = name.rpartition(".")
        if owner.endswith(".base_layer"):
            owner = owner.removesuffix(".base_layer")
            tensor = parameter.detach()
            if leaf == "weight" and owner in layers:
                tensor = _merged(tensor, layers[owner])
            yield f"{owner}.{leaf}", tensor
        else:
            yield name, parameter.detach()


def _merged(weight: Tensor, layer: Any) -> Tensor:
    """W + (alpha / rank) · B·A of each active adapter, rounded once; peft's own merge makes four copies."""
    for adapter in layer.active_adapters:
        down, up = layer.lora_A[adapter].weight.detach(), layer.lora_B[adapter].weight.detach()
        whole = torch.addmm(weight.float(), up.float(), down.float(), alpha=layer.scaling[adapter])
        weight = whole.to(weight.dtype)
    return weight
