"""Filling one layer of a running vLLM model, and rebuilding what the layer derives from its weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

UNFIT = "this model's layers do not fit the engine's: report it with the model's config.json"
"""Remedy where nothing that a user sets is at fault."""


@dataclass(frozen=True, slots=True)
class Load:
    """One call of a parameter's weight loader: a checkpoint tensor goes into (part of) a parameter."""

    parameter: str
    signature: inspect.Signature
    arguments: Mapping[str, Any]
    source: str

    def run(self, layer: Any, tensor: Tensor, loader: Any) -> None:
        bound = inspect.BoundArguments(self.signature, dict(self.arguments))
        bound.arguments |= {"param": getattr(layer, self.parameter), "loaded_weight": tensor}
        loader(*bound.args, **bound.kwargs)


@dataclass(frozen=True, slots=True)
class Layer:
    """How one vLLM module is filled."""

    loads: tuple[Load, ...]
    sources: frozenset[str]
    """Checkpoint names of its parts."""
    stacks: bool
    """Its weight is its sources one below the other, and is packed from there."""


def forget_expert_kernel(layer: Any) -> None:
    """It is built once and kept, with the weights packed into it."""
    if hasattr(layer, "w13_weight"):
        layer.quant_method.moe_kernel = None


def stacks(layer: Any, loads: Sequence[Load], tensors: Sequence[Tensor]) -> bool:
    """Whether a layer's weight is its tensors one below the other, and is kept in a kernel of a CPU."""
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod

    return (
        isinstance(getattr(layer, "quant_method", None), UnquantizedLinearMethod)
        and {load.parameter for load in loads} == {"weight"}
        and {tensor.dtype for tensor in tensors} == {layer.weight.dtype}
        and torch.equal(layer.weight, torch.cat(tensors))
    )


def fill(layer: Any, how: Layer, tensors: Mapping[str, Tensor]) -> None:
    """Put new tensors into a layer and rebuild what is derived from them."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
    from vllm.model_executor.model_loader.reload.layerwise import _get_original_loader

    method = getattr(layer, "quant_method", None)
    if how.stacks and layer.weight.numel() == 0:
        _repack(layer, [tensors[load.source] for load in how.loads])
    elif method is None or isinstance(layer, VocabParallelEmbedding):
        for load in how.loads:
            load.run(layer, tensors[load.source], _get_original_loader(getattr(layer, load.parameter)))
        if method is not None and isinstance(layer, ParallelLMHead):
            method.process_weights_after_loading(layer)
    else:
        _reload(layer, how, tensors)


def _repack(layer: Any, parts: list[Tensor]) -> None:
    """A linear layer whose weight lives in a CPU kernel only: build the kernel straight from the source."""
    emptied = layer.weight
    layer.cpu_linear = None  # its memory serves the new one
    layer.weight = torch.nn.Parameter(_stacked(parts), requires_grad=False)
    layer.quant_method.process_weights_after_loading(layer)
    layer.weight = emptied


def _stacked(parts: list[Tensor]) -> Tensor:
    """The parts one below the other: a view where they adjoin in memory."""
    first = parts[0]
    end = first.data_ptr()
    for part in parts:
        if part.data_ptr() != end or part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return torch.cat(parts)
        end += part.nbytes
    rows = sum(part.shape[0] for part in parts)
    return first.as_strided((rows, *first.shape[1:]), first.stride())


def _reload(layer: Any, how: Layer, tensors: Mapping[str, Tensor]) -> None:
    """vLLM's own way for one layer: load into fresh memory, process, copy to where the kernels look."""
    from vllm.model_executor.model_loader.reload import layerwise
    from vllm.model_executor.model_loader.reload.meta import restore_layer_on_meta
    from vllm.model_executor.model_loader.reload.utils import get_layer_params_buffers

    forget_expert_kernel(layer)
    info = layerwise.get_layerwise_info(layer)
    info.kernel_tensors = get_layer_params_buffers(layer)
    info.kernel_non_persistent_buffers = set(layer._non_persistent_buffers_set)
    restore_layer_on_meta(layer, info)
    for load in how.loads:
        bound = inspect.BoundArguments(load.signature, dict(load.arguments))
        bound.arguments |= {"param": None, "loaded_weight": tensors[load.source]}
        info.loaded_weights.append((load.parameter, bound))
    layerwise._layerwise_process(layer, info)
