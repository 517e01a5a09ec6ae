"""Expert parallelism: every rank holds some of a layer's routed experts, and tokens travel to them.

A token that a router sends to K experts is sent K times, each time to the rank that holds the expert, comes
back as that expert's output, and is weighted and summed at home. Nothing is dropped and nothing padded.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed._functional_collectives import all_to_all_single
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard


def spread_experts(experts: Any, mesh: DeviceMesh) -> None:
    """Leave this rank its part of a layer's experts, and send tokens to where theirs are.

    Args:
        experts: transformers' module of fused experts: its parameters have one row an expert.
        mesh: the ranks that share them evenly; rank r holds rows r · E/n … (r+1) · E/n.
    """
    size, whole = mesh.size(), int(experts.num_experts)
    own, first = whole // size, mesh.get_local_rank() * (whole // size)
    for name, parameter in list(experts.named_parameters()):
        part = parameter.detach()[first : first + own].clone()
        spread = DTensor.from_local(part, mesh, [Shard(0)], run_check=False)
        setattr(experts, name, torch.nn.Parameter(spread, requires_grad=parameter.requires_grad))
    experts.num_experts = own
    experts.forward = _Travel(experts, type(experts).forward, mesh, whole)


class _Travel:
    """The forward pass of experts that are spread over ranks."""

    def __init__(self, experts: Any, compute: Any, mesh: DeviceMesh, whole: int) -> None:
        self.experts, self.compute, self.mesh, self.whole = experts, compute, mesh, whole

    def __call__(self, hidden_NH: Tensor, index_NK: Tensor, weight_NK: Tensor) -> Tensor:
        """Σ_k weight · expert(hidden) for each of this rank's N tokens, [N, H]."""
        size, group = self.mesh.size(), self.mesh.get_group()
        count, choices = index_NK.shape
        flat = index_NK.reshape(-1)
        order = flat.argsort(stable=True)
        sent = torch.bincount(flat, minlength=self.whole).view(size, -1)  # [to rank, its experts]
        got = torch.empty_like(sent)  # [from rank, own experts]
        distributed.all_to_all_single(got, sent, group=group)
        leaving, arriving = sent.sum(1).tolist(), got.sum(1).tolist()
        tokens = all_to_all_single(hidden_NH[order // choices], arriving, leaving, group)
        expert = torch.arange(self.whole // size, device=flat.device).repeat(size)
        expert = expert.repeat_interleave(got.view(-1))
        if not len(expert):  # a row for show: every rank takes part in the backward pass
            tokens, expert = tokens.sum(0, keepdim=True), expert.new_zeros(1)
        found = self._compute(tokens, expert)[: sum(arriving)]
        back = all_to_all_single(found, leaving, arriving, group)
        placed = torch.empty_like(back)
        placed[order] = back
        summed = (placed.view(count, choices, -1) * weight_NK[..., None]).sum(1)
        return summed.to(hidden_NH.dtype)

    def _compute(self, tokens_MH: Tensor, expert_M: Tensor) -> Tensor:
        """Each token by the one expert that it came for, with weight 1."""
        held = dict(self.experts._parameters)
        local = {name: each.to_local() if isinstance(each, DTensor) else each for name, each in held.items()}
        self.experts._parameters.update(local)
        try:
            ones = tokens_MH.new_ones(len(expert_M), 1)
            return self.compute(self.experts, tokens_MH, expert_M[:, None], ones)
        finally:
            self.experts._parameters.update(held)
