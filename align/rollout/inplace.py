"""New weights into a running vLLM model: quickly, and only the layers that get some.

vLLM's own reload walks through the whole model, copies every tensor twice into fresh memory and matches
names anew each time. Here the first push goes that way, while it is written down which checkpoint tensors
make up which layer. Later pushes repeat only that, layer by layer. What vLLM derives from weights is
rebuilt each time: kernels packed for the CPU, MLA's absorbed copies, a tied output head.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from align.errors import EngineError, SyncError
from align.rollout.weight_source import Named, WeightSource

UNFIT = "this model's layers do not fit the engine's: report it with the model's config.json"
"""Remedy where nothing that a user sets is at fault."""


@dataclass(frozen=True, slots=True)
class _Load:
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
class _Layer:
    """How one vLLM module is filled."""

    loads: tuple[_Load, ...]
    sources: frozenset[str]
    """Checkpoint names of its parts."""
    stacks: bool
    """Its weight is its sources one below the other, and is packed from there."""


class InPlaceLoader:
    """Replaces the weights of one worker's model.

    Usage: ``load(source, rank)`` after every update; the first source must be whole.
    Invariant: after it returned, every layer that any tensor of the source belongs to computes with it.
    """

    def __init__(self, model_runner: Any) -> None:
        self.runner = model_runner
        self.model = model_runner.get_model()
        self._layers: dict[Any, _Layer] = {}
        self._takers: dict[str, list[Any]] = {}

    def load(self, source: WeightSource, rank: int) -> None:
        """Take over every tensor of ``source``.

        Raises:
            SyncError: a tensor is missing: the source lacks one that it names, or a layer got only some.
        """
        pairs = _complete(source, rank)
        with torch.no_grad():
            if self._layers:
                updated = self._repeat(pairs)
            elif source.whole:
                updated = self._record(pairs)
            else:
                raise EngineError("the first push must carry every weight")
            if source.whole:
                self._check_covered(updated)
            self._rebuild(updated)

    def _record(self, pairs: Iterator[Named]) -> set[Any]:
        from vllm.model_executor.model_loader.reload import layerwise

        names: dict[tuple[int, torch.Size], str] = {}
        found: dict[Any, _Layer] = {}

        def noted() -> Iterator[Named]:
            for name, tensor in pairs:
                names[tensor.data_ptr(), tensor.shape] = name
                yield name, tensor

        plain = layerwise._layerwise_process

        def process(layer: Any, info: Any) -> None:
            _forget_expert_kernel(layer)
            found[layer] = _read_layer(layer, info, names)
            plain(layer, info)

        layerwise._layerwise_process = process  # vLLM has no hook there
        try:
            self.runner.reload_weights(weights_iterator=noted())
        finally:
            layerwise._layerwise_process = plain
        for layer, how in found.items():
            for name in how.sources:
                self._takers.setdefault(name, []).append(layer)
        self._layers = found
        return set(found)

    def _repeat(self, pairs: Iterator[Named]) -> set[Any]:
        waiting: dict[Any, dict[str, Tensor]] = {}
        updated: set[Any] = set()
        for name, tensor in pairs:
            if name not in self._takers:
                raise SyncError(
                    f"the engine has no layer for {name}",
                    remedy=UNFIT,
                )
            for layer in self._takers[name]:
                got = waiting.setdefault(layer, {})
                got[name] = tensor
                if got.keys() == self._layers[layer].sources:
                    _fill(layer, self._layers[layer], waiting.pop(layer))
                    updated.add(layer)
        for layer, got in waiting.items():
            lacking = min(self._layers[layer].sources - got.keys())
            raise SyncError(
                f"the push has {next(iter(got))} but not {lacking}, which the engine keeps in one tensor",
                remedy=UNFIT,
            )
        return updated

    def _check_covered(self, updated: set[Any]) -> None:
        from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

        for name, layer in self.model.named_modules():
            parameters = get_layerwise_info(layer).restore_metadata[0]
            if parameters and layer not in updated and layer is not self._tied_head():
                raise SyncError(
                    f"the push has no weights for {name}",
                    remedy="trainer and engine must be built from the same config.json",
                )

    def _rebuild(self, updated: set[Any]) -> None:
        """What is derived from the weights of another layer."""
        from vllm.model_executor.layers.attention import is_deferred_attention_layer
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

        for layer in updated:
            if type(layer) is VocabParallelEmbedding and hasattr(layer, "cpu_linear"):
                layer.cpu_linear = torch.nn.functional.linear  # vLLM packs it, but only looks rows up
        head = self._tied_head()
        if head is not None and any(getattr(layer, "weight", None) is head.weight for layer in updated):
            head.quant_method.process_weights_after_loading(head)
        for layer in self.model.modules():
            if is_deferred_attention_layer(layer) and getattr(layer, "kv_b_proj", None) in updated:
                layer.process_weights_after_loading(self.runner.model_config.dtype)

    def _tied_head(self) -> Any:
        head = getattr(self.model, "lm_head", None)
        tied = self.runner.model_config.hf_text_config.tie_word_embeddings
        return head if tied and getattr(head, "quant_method", None) is not None else None


def _complete(source: WeightSource, rank: int) -> Iterator[Named]:
    """The source's pairs; all that it names must come."""
    found = set()
    for name, tensor in source.open(rank):
        found.add(name)
        yield name, tensor
    lost = sorted(set(source.names) - found)
    if lost:
        raise SyncError(
            f"{len(lost)} tensors were lost on the way to the engine, the first is {lost[0]}",
            remedy="restart from the last checkpoint with --resume",
        )


def _forget_expert_kernel(layer: Any) -> None:
    """It is built once and kept, with the weights packed into it."""
    if hasattr(layer, "w13_weight"):
        layer.quant_method.moe_kernel = None


def _read_layer(layer: Any, info: Any, names: Mapping[tuple[int, torch.Size], str]) -> _Layer:
    """What vLLM is about to load into a layer.

    Raises:
        SyncError: it is not all of the layer.
    """
    from vllm.model_executor.model_loader.reload.layerwise import _get_original_loader
    from vllm.model_executor.model_loader.reload.meta import materialize_layer

    if info.load_numel < _elements(layer, info):
        tensors = [args.arguments["loaded_weight"] for _, args in info.loaded_weights]
        got = ", ".join(_name_of(tensor, names) for tensor in tensors)
        raise SyncError(
            f"the engine keeps {got} in one layer with tensors that the push lacks",
            remedy=UNFIT,
        )
    loads: list[_Load] = []
    tensors = []
    materialize_layer(layer, info)
    for name, args in info.loaded_weights:
        rest = dict(args.arguments)
        tensor = rest.pop("loaded_weight")
        rest.pop("param")
        load = _Load(name, args.signature, rest, _name_of(tensor, names))
        load.run(layer, tensor, _get_original_loader(getattr(layer, name)))
        loads.append(load)
        tensors.append(tensor)
    sources = frozenset(load.source for load in loads)
    return _Layer(tuple(loads), sources, _stacks(layer, loads, tensors))


def _name_of(tensor: Tensor, names: Mapping[tuple[int, torch.Size], str]) -> str:
    name = names.get((tensor.data_ptr(), tensor.shape))
    if name is None:
        raise EngineError(
            "vLLM changes a tensor of this model before it loads it, so pushes cannot be repeated",
            remedy="use a model whose layers take checkpoint tensors as they are",
        )
    return name


def _stacks(layer: Any, loads: list[_Load], tensors: list[Tensor]) -> bool:
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod

    return (
        isinstance(getattr(layer, "quant_method", None), UnquantizedLinearMethod)
        and {load.parameter for load in loads} == {"weight"}
        and {tensor.dtype for tensor in tensors} == {layer.weight.dtype}
        and torch.equal(layer.weight, torch.cat(tensors))
    )


def _elements(layer: Any, info: Any) -> int:
    """Elements that a checkpoint has for a layer: vLLM pads vocabularies."""
    vocabulary = getattr(layer, "shard_indices", None)
    if vocabulary is not None:
        return int((vocabulary.num_org_elements + vocabulary.num_added_elements) * layer.embedding_dim)
    return int(info.load_numel_total)


def _fill(layer: Any, how: _Layer, tensors: Mapping[str, Tensor]) -> None:
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


def _reload(layer: Any, how: _Layer, tensors: Mapping[str, Tensor]) -> None:
    """vLLM's own way for one layer: load into fresh memory, process, copy to where the kernels look."""
    from vllm.model_executor.model_loader.reload import layerwise
    from vllm.model_executor.model_loader.reload.meta import restore_layer_on_meta
    from vllm.model_executor.model_loader.reload.utils import get_layer_params_buffers

    _forget_expert_kernel(layer)
    info = layerwise.get_layerwise_info(layer)
    info.kernel_tensors = get_layer_params_buffers(layer)
    info.kernel_non_persistent_buffers = set(layer._non_persistent_buffers_set)
    restore_layer_on_meta(layer, info)
    for load in how.loads:
        bound = inspect.BoundArguments(load.signature, dict(load.arguments))
        bound.arguments |= {"param": None, "loaded_weight": tensors[load.source]}
        info.loaded_weights.append((load.parameter, bound))
    layerwise._layerwise_process(layer, info)
