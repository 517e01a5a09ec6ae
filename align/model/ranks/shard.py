"""Sharding a model over ranks: FSDP2 on all of them, routed experts by expert parallelism where asked.

Weights of the objective's tokens are those of the whole batch (``algo.reduce``), so gradients of ranks add up
and are not averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Shard

from align.model.ranks.expert_parallel import spread_experts
from align.model.ranks.layout import Ranks


def shard(
    model: Any, ranks: Ranks, *, device: str, compute: torch.dtype, completions: Callable[..., Any]
) -> None:
    """Leave each rank its part of a model's weights.

    Trained weights must be fp32: a shard is then its own master. They are gathered as ``compute``, layer by
    layer, and their gradients are summed in fp32.

    Args:
        model: a transformers causal language model, or a peft model around one, whole on every rank. Copies
            of it must have been made before.
        ranks: of this process; torch's default process group connects them.
        device: ``cpu`` or ``cuda``.
        compute: type of the passes.
        completions: function of the model that goes around its own forward; it becomes its method
            ``completions``, which alone may be called then.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    world, parallel = ranks.world, ranks.expert_parallel
    dense = init_device_mesh(device, (world,), mesh_dim_names=("fsdp",))
    sparse = init_device_mesh(device, (world // parallel, parallel), mesh_dim_names=("efsdp", "ep"))
    kinds = {} if compute == torch.float32 else {"param_dtype": compute, "reduce_dtype": torch.float32}
    policy = MixedPrecisionPolicy(**kinds)
    # The routers' weights come into the experts in fp32 and stay it.
    as_they_come = MixedPrecisionPolicy(**kinds, cast_forward_inputs=False)
    for layer in base.get_decoder().layers:
        for experts in routed_experts(layer) if parallel > 1 else ():
            spread_experts(experts, sparse["ep"])
            fully_shard(experts, mesh=sparse["efsdp"], mp_policy=as_they_come)
        fully_shard(layer, mesh=dense, mp_policy=policy, shard_placement_fn=lambda p: _placement(p, world))
    fully_shard(model, mesh=dense, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    model.completions = MethodType(completions, model)
    register_fsdp_forward_method(model, "completions")


def routed_experts(layer: Any) -> list[Any]:
    """The modules of a decoder layer that hold its routed experts, fused."""
    return [
        module
        for module in layer.modules()
        if hasattr(module, "num_experts") and any(p.ndim == 3 for p in module.parameters(recurse=False))
    ]


def _placement(parameter: torch.nn.Parameter, world: int) -> Shard | None:
    """Fused experts have few rows: where some ranks would get none of them, another dimension is cut."""
    wide = parameter.ndim == 3 and parameter.shape[0] % world and parameter.shape[1] % world == 0
    return Shard(1) if wide else None


def local_part(parameter: Tensor) -> Tensor:
    """What this rank holds of a parameter: the same memory, or the parameter itself where it is whole."""
    return parameter.detach().to_local() if isinstance(parameter, DTensor) else parameter


def whole(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The whole of a tensor; of a sharded one every rank must ask at the same time.

    Args:
        tensor: detached.
        dtype: floating tensors are cast to it before they travel.
    """
    if dtype is not None and tensor.is_floating_point() and isinstance(tensor, DTensor):
        tensor = tensor.to(dtype)
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
