"""AdamW on fp32 master weights, whatever type the model computes in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from align.config.optim import OptimConfig

Named = tuple[str, torch.nn.Parameter]


class MasterAdamW:
    """AdamW whose weights, moments and accumulated gradients are fp32.

    Usage: any number of ``loss.backward()``, then ``grad_norm = optimizer.step(lr)``.

    Invariant: between steps every compute weight equals its master rounded to the compute type,
    and no gradient is held. Gradients move into fp32 as soon as each is complete, so micro-batches
    add up without bf16 rounding. fp32 models are their own masters and cost nothing extra.
    """

    def __init__(self, named_parameters: Iterable[Named], config: OptimConfig) -> None:
        self.config = config
        self.compute = {name: p for name, p in named_parameters if p.requires_grad}
        self.master: dict[str, Tensor] = {}
        for name, parameter in self.compute.items():
            if parameter.dtype == torch.float32:
                self.master[name] = parameter
            else:
                self.master[name] = parameter.detach().float()
                parameter.register_post_accumulate_grad_hook(partial(self._collect, name))
        decayed = [w for w in self.master.values() if w.ndim >= 2]
        plain = [w for w in self.master.values() if w.ndim < 2]
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

    def step(self, lr: float) -> float:
        """Clip, update, round back into the compute weights; returns the norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(list(self.master.values()), self.config.grad_clip)
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self._round()
        return float(norm)

    def _round(self) -> None:
        with torch.no_grad():
            for name, parameter in self.compute.items():
                if self.master[name] is not parameter:
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
                master.copy_(tensors[f"master/{name}"])
                kept = {key: tensors.get(f"{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
                if all(value is not None for value in kept.values()):
                    self.adamw.state[master] = {
                        key: value.clone() for key, value in kept.items() if value is not None
                    }
        self._round()
