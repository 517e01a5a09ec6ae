"""Which experts the engine sent each token to (``grpo.replay: rollout``).

On a GPU vLLM reports them itself (``enable_return_routed_experts``). That needs its second model
runner, which a CPU has not, so there the routers and the runner of the worker are watched: a router
says what it chose for the rows of a batch, the runner says whose tokens these rows are. Rows reach
the routers only in eager mode.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from align.errors import EngineError, RecipeError

Experts = NDArray[np.unsignedinteger]
"""uint8 (uint16 above 256 experts) [tokens, L, K]."""


def capture_arguments(device: str, *, compiled: bool) -> dict[str, Any]:
    """Arguments of ``vllm.LLM`` for an engine that reports routed experts.

    Raises:
        RecipeError: a compiled engine on a CPU cannot.
    """
    if device != "cpu":
        return {"enable_return_routed_experts": True}
    if compiled:
        raise RecipeError(
            "a compiled engine on a CPU does not report its routed experts, which grpo.replay needs",
            key="rollout.compile",
            remedy="set rollout.compile to false, or grpo.replay to trainer or off",
        )
    return {"enable_prefix_caching": False}  # a cached token is not routed again


class RoutingCapture:
    """The routed experts of an engine's requests.

    Usage: ``start``, run requests, ``take`` each as it finishes, ``stop``.
    """

    def __init__(self, llm: Any, device: str) -> None:
        self._llm = llm
        self._watched = device == "cpu"
        self._layers: list[int] = llm.collective_rpc("moe_layers")[0]
        if not self._layers:
            raise EngineError(
                "the engine's model has no routers that report their choice",
                key="grpo.replay",
                remedy="set it to trainer or off",
            )

    def start(self) -> None:
        """Watch the requests from here on; what was left of others is forgotten."""
        if self._watched:
            self._llm.collective_rpc("start_routing_capture")

    def stop(self) -> None:
        """Stop watching."""
        if self._watched:
            self._llm.collective_rpc("stop_routing_capture")

    def take(self, request_id: str, output: Any, fed: int) -> Experts:
        """The experts of a finished request, [fed, L, K].

        Args:
            request_id: as ``add_request`` returned it.
            output: vLLM's ``CompletionOutput``.
            fed: tokens that the engine computed: prompt + completion - 1.

        Raises:
            EngineError: the experts of some token are missing.
        """
        if self._watched:
            pieces = self._llm.collective_rpc("take_routing", args=(request_id,))[0]
        else:
            found = output.routed_experts  # [tokens, all layers, K]
            pieces = [] if found is None else [(0, found[:, self._layers])]
        return join_pieces(pieces, fed)


def join_pieces(pieces: Sequence[tuple[int, Experts]], fed: int) -> Experts:
    """One array of all fed tokens; a token that was computed twice (preemption) keeps the last.

    Args:
        pieces: (first token, [tokens, L, K]) of each batch that the request was in.
        fed: tokens wanted.

    Raises:
        EngineError: the pieces leave a token out.
    """
    covered = np.zeros(fed, dtype=bool)
    if pieces:
        experts = np.empty((fed, *pieces[0][1].shape[1:]), dtype=pieces[0][1].dtype)
    for start, rows in pieces:
        rows = rows[: max(0, fed - start)]
        experts[start : start + len(rows)] = rows
        covered[start : start + len(rows)] = True
    if not covered.all():
        raise EngineError(
            f"the engine reported the experts of {int(covered.sum())} of {fed} tokens of a completion",
            key="grpo.replay",
            remedy="set it to trainer or off",
        )
    return experts


class RoutingReporter:
    """The worker's side; mixed into vLLM's worker, whose ``model_runner`` is vLLM's."""

    model_runner: Any
    _watch: _Watch | None = None

    def moe_layers(self) -> list[int]:
        """Numbers of the MoE layers in the model."""
        return [runner.layer_id for runner in _moe_runners(self.model_runner.get_model())]

    def start_routing_capture(self) -> None:
        if self._watch is None:
            self._watch = _Watch(self.model_runner)
        self._watch.pieces.clear()
        self._watch.recording = True

    def stop_routing_capture(self) -> None:
        if self._watch is not None:
            self._watch.pieces.clear()
            self._watch.recording = False

    def take_routing(self, request_id: str) -> list[tuple[int, Experts]]:
        """(first token, experts) of each batch that the request was in."""
        return self._watch.pieces.pop(request_id, []) if self._watch is not None else []


class _Watch:
    """Hooks on the routers and around ``execute_model`` of one runner."""

    def __init__(self, runner: Any) -> None:
        self.recording = False
        self.pieces: defaultdict[str, list[tuple[int, Experts]]] = defaultdict(list)
        self._runner = runner
        routers = [each.router for each in _moe_runners(runner.get_model())]
        self._dtype = np.uint8 if routers[0].global_num_experts <= 256 else np.uint16
        self._batch: dict[int, Experts] = {}
        self._layers = len(routers)
        for place, router in enumerate(routers):
            router.set_capture_fn(partial(self._keep, place))
        self._execute = runner.execute_model
        runner.execute_model = self._execute_and_share_out

    def _keep(self, place: int, topk_ids: Tensor) -> None:
        if self.recording:
            self._batch[place] = topk_ids.numpy().astype(self._dtype)  # a copy

    def _execute_and_share_out(self, scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        self._batch.clear()
        result = self._execute(scheduled, *args, **kwargs)
        if self.recording and scheduled.total_num_scheduled_tokens:
            self._share_out(scheduled)
        return result

    def _share_out(self, scheduled: Any) -> None:
        rows = np.stack([self._batch[place] for place in range(self._layers)], 1)
        batch, first = self._runner.input_batch, 0
        for name, start in zip(batch.req_ids, batch.num_computed_tokens_cpu, strict=False):
            tokens = scheduled.num_scheduled_tokens[name]
            self.pieces[name].append((int(start), rows[first : first + tokens]))
            first += tokens


def _moe_runners(model: Any) -> list[Any]:
    """vLLM's MoE layers whose routers can be watched, first layer first."""
    from vllm.model_executor.layers.fused_moe.layer import MoERunner

    runners = [module for module in model.modules() if isinstance(module, MoERunner)]
    return sorted((each for each in runners if hasattr(each.router, "set_capture_fn")), key=_layer)


def _layer(runner: Any) -> int:
    return int(runner.layer_id)
