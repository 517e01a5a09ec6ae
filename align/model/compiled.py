"""Compiling on a CPU, where that is possible."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from align.errors import ModelError
from align.model.experts.routers import is_moe

PAYS = 100_000_000
"""Weights of a dense model from which compiling its layers pays: it takes up to a minute at the start."""
_log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])


@functools.cache
def can_compile() -> bool:
    """Whether PyTorch compiles for the CPU here: it needs a C++ compiler and Python's headers. Tried once."""
    try:
        torch.compile(_trial)(torch.ones(64))
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        _log.warning("nothing is compiled for the CPU, so training is slower: %s", reason)
        return False
    return True


def _trial(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.exp().sum()


def cpu_compiled(function: F) -> F:
    """``function``, compiled for any shape where its first tensor is on a CPU and that is possible.

    For passes over memory: what eager PyTorch does in one pass for each operation becomes one or two.
    """
    compiled = torch.compile(function, dynamic=True)

    @functools.wraps(function)
    def chosen(*args: Any) -> Any:
        return (compiled if args[0].device.type == "cpu" and can_compile() else function)(*args)

    return cast(F, chosen)


def compile_layers(model: Any, wanted: bool | None, *, on_cpu: bool) -> bool:
    """Compile the decoder layers of a transformers (or peft) model, attention left out, for any shape.

    Args:
        model: with or without an output head.
        wanted: None: where it pays, see ``policy.compile``.
        on_cpu: whether it will compute on a CPU; sharded models are loaded there and move later.

    Returns:
        Whether they are compiled.

    Raises:
        ModelError: wanted for a MoE model, for one without layers that transformers marks as such, or on
            a CPU where PyTorch cannot compile.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    config = base.config.get_text_config()
    layers = [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]
    if wanted is None:
        large = sum(parameter.numel() for parameter in base.parameters()) >= PAYS
        wanted = bool(on_cpu and large and layers and not is_moe(config) and can_compile())
    elif wanted:
        _check(config, layers, on_cpu)
    if wanted:
        torch._dynamo.config.optimize_ddp = False  # it would split each layer's graph
        for layer in layers:
            layer.compile(dynamic=True)
    return wanted


def _check(config: Any, layers: Sequence[Any], on_cpu: bool) -> None:
    if is_moe(config):
        raise ModelError(
            "MoE layers cannot be compiled: routing breaks the graph, and the experts' shapes change",
            key="policy.compile",
            remedy="leave the key out",
        )
    if not layers:
        raise ModelError(
            f"{config.model_type} has no decoder layers to compile",
            key="policy.compile",
            remedy="leave the key out",
        )
    if on_cpu and not can_compile():
        raise ModelError(
            "PyTorch cannot compile for the CPU here; the log says why",
            key="policy.compile",
            remedy="install g++ and Python's headers (python3-dev), or leave the key out",
        )
