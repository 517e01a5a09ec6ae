"""The policy's weights as a checkpoint would name them: layout-free (name, tensor) pairs.

Routed experts are split (``experts.3.gate_proj.weight``), adapters are merged, tied heads appear
once, buffers that belong to the weights (a router's correction bias) come along. This is what rollout
engines and ``save_pretrained`` directories speak. The names are transformers' own: it keeps, for every
architecture, how a checkpoint's tensors become the model's, and can go back.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from align.model.ranks.shard import whole


def hf_stream(
    model: Any, *, changed_only: bool = False, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield (checkpoint name, detached tensor); views where possible, merged copies under LoRA.

    Of a sharded model one parameter after the other is gathered, and all ranks must iterate together.

    Args:
        model: a transformers model, or a peft model around one.
        dtype: type in which sharded weights travel; default: their own.
        changed_only: only what training changes. Under LoRA: each adapted layer together with its
            neighbours in the block, which engines fuse with it (q with k and v, gate with up).
    """
    base = base_model(model)
    adapted = changed_only and base is not model
    blocks = {_block(f"{name}.weight") for name in _adapted_layers(base)} if adapted else None
    for name, tensor in _merged_tensors(model, blocks, dtype):
        yield from in_checkpoint(base, name, tensor).items()


def adapted_tensors(model: Any) -> set[str]:
    """Checkpoint names of the weights that adapters are merged into; empty without LoRA."""
    base = base_model(model)
    if base is model:
        return set()
    return {
        found
        for name, module in _adapted_layers(base).items()
        for found in in_checkpoint(base, f"{name}.weight", module.base_layer.weight.detach())
    }


def base_model(model: Any) -> Any:
    """The transformers model inside a peft model; any other model as it is."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


_plain: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""For each model the names that checkpoints have too: looking up each of them again takes a millisecond."""


def in_checkpoint(model: Any, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A parameter or buffer of a transformers model under the names that checkpoints have.

    Args:
        model: tells the architecture.
        name: as the model names it.
        tensor: its values; what comes out are views of them.
    """
    from transformers.core_model_loading import revert_weight_conversion

    plain = _plain.setdefault(model, set())
    if name in plain:
        return {name: tensor}
    with _Views(), torch.no_grad():
        found: dict[str, Tensor] = revert_weight_conversion(model, {name: tensor})
    if list(found) == [name] and found[name] is tensor:
        plain.add(name)
    return found


class _Views(TorchFunctionMode):
    """Nothing is made contiguous: the parts of a fused weight stay views of it.

    An engine on the same machine reads the parameters where they lie; copies would double them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.contiguous else func(*args, **(kwargs or {}))


def _adapted_layers(base: Any) -> dict[str, Any]:
    return {name: module for name, module in base.named_modules() if hasattr(module, "lora_A")}


def _block(name: str) -> str:
    """``layers.0.self_attn`` of ``layers.0.self_attn.q_proj.weight``."""
    return name.rsplit(".", 2)[0]


def _merged_tensors(
    model: Any, blocks: Set[str] | None, dtype: torch.dtype | None
) -> Iterator[tuple[str, Tensor]]:
    base = base_model(model)
    layers = {} if base is model else _adapted_layers(base)
    for name, tensor in own_tensors(base):
        if ".lora_" in name:
            continue
        name = name.replace(".base_layer.", ".")
        if blocks is not None and _block(name) not in blocks:
            continue
        owner, _, leaf = name.rpartition(".")
        tensor = whole(tensor, dtype)
        yield name, _merged(tensor, layers[owner], dtype) if leaf == "weight" and owner in layers else tensor


def own_tensors(base: Any) -> Iterator[tuple[str, Tensor]]:
    """(name, detached tensor) of every parameter, shared ones once, and of every buffer that is saved."""
    for name, parameter in base.named_parameters():
        yield name, parameter.detach()
    saved = base.state_dict().keys()
    for name, buffer in base.named_buffers():
        if name in saved:
            yield name, buffer.detach()


def _merged(weight: Tensor, layer: Any, dtype: torch.dtype | None) -> Tensor:
    """W + (alpha / rank) · B·A of each active adapter, rounded once; peft's own merge makes four copies."""
    for adapter in layer.active_adapters:
        down, up = (whole(each[adapter].weight.detach(), dtype) for each in (layer.lora_A, layer.lora_B))
        merged = torch.addmm(weight.float(), up.float(), down.float(), alpha=layer.scaling[adapter])
        weight = merged.to(weight.dtype)
    return weight
