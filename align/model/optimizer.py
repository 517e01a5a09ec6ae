"""AdamW on fp32 master weights, whatever type the model computes in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
import torch.distributed as distributed
from torch import Tensor

from align.config.optim import OptimConfig
from align.errors import NonFiniteError
from align.model.ranks.boxes import Box, box_of
from align.model.ranks.layout import Ranks
from align.model.ranks.shard import local_part

Named = tuple[str, torch.nn.Parameter]


class MasterAdamW:
    """AdamW whose weights, moments and accumulated gradients are fp32.

    Usage: any number of ``loss.backward()``, then ``grad_norm = optimizer.step(lr)``.

    Invariant: between steps every compute weight equals its master rounded to the compute type,
    and no gradient is held. Gradients move into fp32 as soon as each is complete, so micro-batches
    add up without bf16 rounding. fp32 models are their own masters and cost nothing extra.

    Of sharded parameters each rank updates what it holds; they are fp32. Then ``step`` is called on all
    ranks at the same time.
    """

    def __init__(
        self,
        named_parameters: Iterable[Named],
        config: OptimConfig,
        ranks: Ranks = Ranks(),  # noqa: B008
    ) -> None:
        self.config, self.ranks = config, ranks
        self.compute = {name: p for name, p in named_parameters if p.requires_grad}
        self.master: dict[str, Tensor] = {}
        for name, parameter in self.compute.items():
            if parameter.dtype == torch.float32:
                self.master[name] = local_part(parameter)
            else:
                self.master[name] = parameter.detach().float()
                parameter.register_post_accumulate_grad_hook(partial(self._collect, name))
        self.boxes = {name: box_of(p) for name, p in self.compute.items()}
        """Which part of each weight is held here."""
        held = [w for w in self.master.values() if w.numel()]
        decayed = [w for w in held if w.ndim >= 2]
        plain = [w for w in held if w.ndim < 2]
        self.adamw = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        )

    def _collect(self, name: str, parameter: torch.nn.Parameter) -> None:
        master = self.master[name]
        assert parameter.grad is not None
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad += parameter.grad
        parameter.grad = None

    def step(self, lr: float, when: str = "") -> float:
        """Clip, update, round back into the compute weights; returns the norm before clipping.

        Args:
            lr: learning rate.
            when: for the message.

        Raises:
            NonFiniteError: a gradient is not finite. No weight and no moment has changed then, and no
                gradient is held.
        """
        norm = self._clip()
        if not torch.isfinite(norm):
            lost = [name for name, w in self.master.items() if w.grad is not None and not _finite(w.grad)]
            self.discard()
            raise NonFiniteError(
                f"{when}the gradient is not finite, first in {min(lost, default='the sum over all weights')}",
                key="optim.lr",
                remedy="the policy is as it was before this update; lower optim.lr, or raise it less steeply "
                "(optim.warmup_steps), and continue with --resume",
            )
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        for master in self.master.values():
            master.grad = None
        self._round()
        return float(norm)

    def _clip(self) -> Tensor:
        """Scale all gradients to the largest norm allowed; their norm before, over all ranks."""
        for name, parameter in self.compute.items():
            if self.ranks.world > 1 and parameter.grad is not None:
                self.master[name].grad, parameter.grad = local_part(parameter.grad), None
        gradients = [w.grad for w in self.master.values() if w.grad is not None and w.numel()]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.ranks.world > 1:  # every value lies on one rank
            squared = norm.to(next(iter(self.master.values())).device).double().square()
            distributed.all_reduce(squared)
            norm = squared.sqrt().float()
        held = [w for w in self.master.values() if w.numel()]
        torch.nn.utils.clip_grads_with_norm_(held, self.config.grad_clip, norm)
        return norm

    def discard(self) -> None:
        """Forget the gradients that were accumulated."""
        for held in (*self.master.values(), *self.compute.values()):
            held.grad = None

    def fault(self) -> NonFiniteError | None:
        """Why this must not be saved: a master weight or moment held here is not finite."""
        for key, tensor in self.state().items():
            if not _finite(tensor):
                kind, _, name = key.partition("/")
                return NonFiniteError(
                    f"{name} holds values that are no finite numbers ({kind})",
                    remedy="the last checkpoint is intact: continue with --resume, with a lower optim.lr",
                )
        return None

    def places(self) -> dict[str, Box]:
        """Which part of each tensor of :meth:`state` is held here."""
        kinds = ("master", "exp_avg", "exp_avg_sq")
        return {f"{kind}/{name}": box for kind in kinds for name, box in self.boxes.items()}

    def _round(self) -> None:
        with torch.no_grad():
            for name, parameter in self.compute.items():
                if parameter.dtype != torch.float32:
                    parameter.copy_(self.master[name])

    def state(self) -> dict[str, Tensor]:
        """Flat named tensors for safetensors: ``master/…``, ``exp_avg/…``, ``exp_avg_sq/…``, ``step``."""
        tensors: dict[str, Tensor] = {}
        for name, master in self.master.items():
            tensors[f"master/{name}"] = master.detach()
            for key, value in self.adamw.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore :meth:`state`; also writes the compute weights.

        Raises:
            KeyError: a trained parameter is missing from ``tensors``.
        """
        with torch.no_grad():
            for name, master in self.master.items():
                if not master.numel():  # a rank that holds nothing of it
                    continue
                master.copy_(tensors[f"master/{name}"])
                kept = {key: tensors.get(f"{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
                if all(value is not None for value in kept.values()):
                    self.adamw.state[master] = {
                        key: value.clone() for key, value in kept.items() if value is not None
                    }
        self._round()


def _finite(tensor: Tensor) -> bool:
    """In one pass, without a mask as large as the tensor: a sum over it is not finite if any value is not.

    A sum of finite values may overflow, so only then each is looked at.
    """
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
