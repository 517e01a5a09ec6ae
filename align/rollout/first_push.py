"""The first push into a vLLM model: vLLM's own reload, watched, so that later ones can repeat what it did.

vLLM takes all tensors in one call. Here they come in buckets, so the three parts of its reload are called one
by one: begin, load for each bucket, and finish.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from align.errors import EngineError, SyncError
from align.rollout.fill import UNFIT, Layer, Load, forget_expert_kernel, stacks
from align.rollout.weight_source import Named


class FirstPush:
    """Usage: ``take(pairs)`` for each bucket, then ``finish()``; it alone may load weights meanwhile."""

    def __init__(self, model_runner: Any) -> None:
        from vllm.model_executor.model_loader.reload.layerwise import initialize_layerwise_reload

        self.runner, self.model = model_runner, model_runner.get_model()
        self._found: dict[Any, Layer] = {}
        self._names: dict[tuple[int, torch.Size], str] = {}
        for info in self._infos():  # a push before this one may have ended in its middle
            info.loaded_weights.clear()
            info.load_numel = 0
        initialize_layerwise_reload(self.model)

    def take(self, pairs: Iterable[Named]) -> None:
        """Load a bucket.

        Raises:
            SyncError: a layer of the engine has parts that the push lacks.
        """

        def noted() -> Iterator[Named]:
            for name, tensor in pairs:
                self._names[tensor.data_ptr(), tensor.shape] = name
                yield name, tensor

        with self._watched():
            self.model.load_weights(noted())
        self._keep_waiting()

    def finish(self) -> dict[Any, Layer]:
        """How every layer that got weights is filled."""
        from vllm.model_executor.model_loader.reload.layerwise import finalize_layerwise_reload

        with self._watched():
            finalize_layerwise_reload(self.model, self.runner.model_config)
        return self._found

    def _infos(self) -> list[Any]:
        from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

        return [get_layerwise_info(layer) for layer in self.model.modules()]

    def _keep_waiting(self) -> None:
        """Copy what a layer holds until its other parts come: the bucket's memory gets new contents."""
        kept = {}
        for info in self._infos():
            for _, call in info.loaded_weights:
                tensor = call.arguments["loaded_weight"]
                call.arguments["loaded_weight"] = own = tensor.clone()
                kept[own.data_ptr(), own.shape] = _name_of(tensor, self._names)
        self._names = kept

    @contextmanager
    def _watched(self) -> Iterator[None]:
        from vllm.model_executor.model_loader.reload import layerwise

        plain = layerwise._layerwise_process

        def process(layer: Any, info: Any) -> None:
            forget_expert_kernel(layer)
            self._found[layer] = _read_layer(layer, info, self._names)
            plain(layer, info)

        layerwise._layerwise_process = process  # vLLM has no hook there
        try:
            yield
        finally:
            layerwise._layerwise_process = plain


def _read_layer(layer: Any, info: Any, names: Mapping[tuple[int, torch.Size], str]) -> Layer:
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
    loads: list[Load] = []
    tensors = []
    materialize_layer(layer, info)
    for name, args in info.loaded_weights:
        rest = dict(args.arguments)
        tensor = rest.pop("loaded_weight")
        rest.pop("param")
        load = Load(name, args.signature, rest, _name_of(tensor, names))
        load.run(layer, tensor, _get_original_loader(getattr(layer, name)))
        loads.append(load)
        tensors.append(tensor)
    sources = frozenset(load.source for load in loads)
    return Layer(tuple(loads), sources, stacks(layer, loads, tensors))


def _name_of(tensor: Tensor, names: Mapping[tuple[int, torch.Size], str]) -> str:
    name = names.get((tensor.data_ptr(), tensor.shape))
    if name is None:
        raise EngineError(
            "vLLM changes a tensor of this model before it loads it, so pushes cannot be repeated",
            remedy="use a model whose layers take checkpoint tensors as they are",
        )
    return name


def _elements(layer: Any, info: Any) -> int:
    """Elements that a checkpoint has for a layer: vLLM pads vocabularies."""
    vocabulary = getattr(layer, "shard_indices", None)
    if vocabulary is not None:
        return int((vocabulary.num_org_elements + vocabulary.num_added_elements) * layer.embedding_dim)
    return int(info.load_numel_total)
