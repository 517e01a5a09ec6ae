"""Compiling on a CPU, where that is possible."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

from align.errors import ModelError

PAYS = 100_000_000
"""Weights of a dense model from which compiling its layers pays: it takes half a minute at the first step."""
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


def compile_layers(model: Any, wanted: bool | None) -> bool:
    """Compile the decoder layers of a transformers (or peft) model, attention left out, for any shape.

    Args:
        model: with or without an output head.
        wanted: None: where it pays, see ``policy.compile``.

    Returns:
        Whether they are compiled.

    Raises:
        ModelError: wanted on a CPU, and PyTorch cannot compile here.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    on_cpu = next(base.parameters()).device.type == "cpu"
    if wanted is None:
        dense = not getattr(base.config, "n_routed_experts", None)
        large = sum(parameter.numel() for parameter in base.parameters()) >= PAYS
        wanted = on_cpu and dense and large and can_compile()
    elif wanted and on_cpu and not can_compile():
        raise ModelError(
            "PyTorch cannot compile for the CPU here; the log says why",
            key="policy.compile",
            remedy="install g++ and Python's headers (python3-dev), or leave the key out",
        )
    if wanted:
        for layer in getattr(base, base.base_model_prefix).layers:
            layer.compile(dynamic=True)
    return wanted
