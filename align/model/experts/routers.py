"""What the routers of a MoE policy do, seen from outside the model.

The releases of this family define an auxiliary loss, but transformers computes none for them, and
TRL's fused head drops ``router_logits``. So the routers themselves are watched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align.errors import ModelError


class Routing(NamedTuple):
    """Of one forward pass over B rows of S positions, L MoE layers."""

    logits_LBSE: Tensor
    """fp32, with gradient: affinity logits before any device-group mask."""
    selected_LBSK: Tensor
    """int64: the experts that each token was sent to."""


def is_moe(config: Any) -> bool:
    """Whether a transformers configuration has routed experts, under whichever name."""
    return experts_of(config) > 0


def experts_of(config: Any) -> int:
    """Routed experts of a layer, 0 of a dense model."""
    text = config.get_text_config()
    found = (getattr(text, key, None) for key in _EXPERTS)
    return next((each for each in found if isinstance(each, int) and each), 0)


_EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
"""Names of the number of experts: DeepSeek's, Mixtral's, Qwen's and ERNIE's."""


def expert_kernel(config: Any, kernel: str) -> dict[str, str]:
    """The keyword that loads a model with a kernel for its routed experts; none where there is no choice.

    Args:
        config: transformers configuration of a causal language model.
        kernel: ``policy.experts``.
    """
    from transformers import AutoModelForCausalLM

    known = is_moe(config) and type(config) in AutoModelForCausalLM._model_mapping
    if not known or not AutoModelForCausalLM._model_mapping[type(config)]._can_set_experts_implementation():
        return {}
    return {"experts_implementation": kernel}


class RouterRecorder:
    """Collects what the routers of ``model`` decide.

    Usage: ``with recorder.record(): model(...)``, then ``recorder.routing(rows)``.

    Works under gradient checkpointing: the second forward pass, inside backward, is outside
    ``record`` and leaves nothing behind.

    Args:
        model: a transformers model, or a peft model around one.

    Raises:
        ModelError: the routers of this architecture do not say which experts they chose.
    """

    def __init__(self, model: Any) -> None:
        self._outputs: list[tuple[Tensor, ...]] = []
        self._recording = False
        routers = find_routers(model)
        if not routers:
            raise ModelError(
                f"no routers that can be watched in {type(model).__name__}",
                key="sft.balance_alpha",
                remedy="set it to 0 for this architecture",
            )
        for router in routers:
            router.register_forward_hook(self._keep)

    def _keep(self, module: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
        if self._recording:
            self._outputs.append(output)

    @contextmanager
    def record(self) -> Iterator[None]:
        """Forget the last pass and watch the next one."""
        self._outputs.clear()
        self._recording = True
        try:
            yield
        finally:
            self._recording = False

    def routing(self, rows: int) -> Routing:
        """The recorded pass, layer by layer.

        Args:
            rows: B of that pass; routers see tokens flat.
        """
        logits = torch.stack([output[0] for output in self._outputs])
        selected = torch.stack([output[2] for output in self._outputs])
        self._outputs.clear()
        return Routing(logits.unflatten(1, (rows, -1)), selected.unflatten(1, (rows, -1)))


def find_routers(model: Any) -> list[Any]:
    """The router modules, first layer first; each returns (logits, weights, selected experts)."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    records: list[Any] = [
        (getattr(module, "_can_record_outputs", None) or {}).get("router_logits") for module in base.modules()
    ]
    kinds = tuple({record.target_class for record in records if getattr(record, "index", None) == 0})
    return [module for module in base.modules() if isinstance(module, kinds) and hasattr(module, "top_k")]
