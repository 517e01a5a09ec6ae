"""AdamW on fp32 master weights behind the interface of ``torch.optim``, which Trainer speaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from align.config.optim import OptimConfig
from align.model.optimizer import MasterAdamW, Named


class TrainerAdamW(torch.optim.Optimizer):
    """:class:`MasterAdamW`, clipping included.

    Mixed precision by autocast is no substitute: it would run the fp32 routers in bf16, so that
    trainer and rollout engine route differently, and the fused experts in fp32.
    """

    def __init__(
        self, named_parameters: Iterable[Named], config: OptimConfig, when: Callable[[], str] = str
    ) -> None:
        """``when`` says for messages which step is at hand."""
        self.when = when
        self.master = MasterAdamW(named_parameters, config)
        self.grad_norm = 0.0
        """Norm of the last step's gradient before clipping."""
        super().__init__(list(self.master.compute.values()), {"lr": config.lr})

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Clip, update, and round into the compute weights.

        Raises:
            NonFiniteError: a gradient is not finite; nothing has changed then.
        """
        self.grad_norm = self.master.step(self.param_groups[0]["lr"], self.when())

    def state_dict(self) -> dict[str, Any]:
        """Master weights and moments by parameter name, and the learning rate."""
        return {"lr": self.param_groups[0]["lr"], **self.master.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; writes the compute weights too."""
        self.param_groups[0]["lr"] = state_dict["lr"]
        self.master.load_state({name: value for name, value in state_dict.items() if name != "lr"})
