"""New weights into a running vLLM model: quickly, and only the layers that get some.

vLLM's own reload walks through the whole model, copies every tensor twice into fresh memory and matches
names anew each time. Here the first push goes that way, while it is written down which checkpoint tensors
make up which layer. Later pushes repeat only that, layer by layer. What vLLM derives from weights is
rebuilt each time: kernels packed for the CPU, MLA's absorbed copies, a tied output head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from align.errors import EngineError, SyncError
from align.rollout.fill import UNFIT, Layer, fill
from align.rollout.first_push import FirstPush
from align.rollout.weight_source import Named, WeightSource


class InPlaceLoader:
    """Replaces the weights of one worker's model.

    Usage: ``load(source, rank)`` after every update, with each bucket of a push in order; the first push must
    be whole.
    Invariant: after the last bucket every layer that any tensor of the push belongs to computes with it.
    """

    def __init__(self, model_runner: Any) -> None:
        self.runner = model_runner
        self.model = model_runner.get_model()
        self._layers: dict[Any, Layer] = {}
        self._takers: dict[str, list[Any]] = {}
        self._push: FirstPush | _Repeated | None = None

    def load(self, source: WeightSource, rank: int) -> None:
        """Take over every tensor of ``source``.

        Raises:
            SyncError: a tensor is missing: the source lacks one that it names, or a layer got only some.
            EngineError: the bucket belongs to no push that began here.
        """
        with torch.no_grad():
            if source.first:
                self._push = self._begin(source)
            if self._push is None:
                raise EngineError("the engine got a bucket of weights without those before it")
            push = self._push
            push.take(_complete(source, rank))
            if source.last:
                self._push = None
                updated = push.finish()
                if isinstance(push, FirstPush):
                    self._remember(updated)
                if source.whole:
                    self._check_covered(set(updated))
                self._rebuild(set(updated))

    def _begin(self, source: WeightSource) -> FirstPush | _Repeated:
        if self._layers:
            return _Repeated(self._layers, self._takers)
        if not source.whole:
            raise EngineError("the first push must carry every weight")
        return FirstPush(self.runner)

    def _remember(self, layers: dict[Any, Layer]) -> None:
        self._layers = layers
        for layer, how in layers.items():
            for name in how.sources:
                self._takers.setdefault(name, []).append(layer)

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


class _Repeated:
    """A push after the first one."""

    def __init__(self, layers: dict[Any, Layer], takers: dict[str, list[Any]]) -> None:
        self._layers, self._takers = layers, takers
        self._waiting: dict[Any, dict[str, Tensor]] = {}
        self._updated: dict[Any, Layer] = {}

    def take(self, pairs: Iterable[Named]) -> None:
        """Fill each layer whose parts have all come.

        Raises:
            SyncError: no layer takes a tensor.
        """
        for name, tensor in pairs:
            if name not in self._takers:
                raise SyncError(f"the engine has no layer for {name}", remedy=UNFIT)
            for layer in self._takers[name]:
                got = self._waiting.setdefault(layer, {})
                got[name] = tensor
                if got.keys() == self._layers[layer].sources:
                    fill(layer, self._layers[layer], self._waiting.pop(layer))
                    self._updated[layer] = self._layers[layer]
        for got in self._waiting.values():  # the bucket's memory gets new contents
            got |= {name: tensor.clone() for name, tensor in got.items()}

    def finish(self) -> dict[Any, Layer]:
        """The layers that were filled.

        Raises:
            SyncError: one got only some of its parts.
        """
        for layer, got in self._waiting.items():
            lacking = min(self._layers[layer].sources - got.keys())
            raise SyncError(
                f"the push has {next(iter(got))} but not {lacking}, which the engine keeps in one tensor",
                remedy=UNFIT,
            )
        return self._updated


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
