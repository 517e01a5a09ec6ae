"""Moving the policy's parts between a GPU and main memory.

On a CPU machine main memory is the device, so nothing moves and every call says so in the log.
Written for one GPU and not tried on one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from align.errors import EngineError
from align.plan.residency import Part

_log = logging.getLogger(__name__)


class Offload:
    """Sends parts of a :class:`align.model.policy.PolicyModel` away and brings them back.

    Tensors keep their identity (the optimiser, hooks and the model hold on to them); only the memory
    behind them changes.
    """

    def __init__(self, policy: Any, device: str) -> None:
        """
        Args:
            policy: its ``model``, ``optimizer`` and ``reference`` are moved.
            device: ``cpu`` or ``cuda``.
        """
        self.policy, self.device = policy, device
        self._asleep: set[Part] = set()

    def sleep(self, part: Part) -> None:
        """Put ``policy``, ``optimizer`` or ``reference`` into main memory.

        Raises:
            EngineError: it is there already, or the policy has no such part.
        """
        if part in self._asleep or part not in self._parts():
            raise EngineError(f"the policy has no {part} that is awake, so it cannot sleep")
        self._move(part, "cpu")
        self._asleep.add(part)
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def wake(self, part: Part) -> None:
        """Put a part back on the device.

        Raises:
            EngineError: it is there already.
        """
        if part not in self._asleep:
            raise EngineError(f"the policy has no {part} that is asleep, so it cannot wake")
        self._move(part, self.device)
        self._asleep.remove(part)

    def _parts(self) -> set[Part]:
        parts: set[Part] = {"policy", "optimizer"}
        return parts if self.policy.reference is None else parts | {"reference"}

    def _move(self, part: Part, device: str) -> None:
        if self.device == "cpu":
            _log.info("%s stays where it is: main memory is the device", part)
            return
        relocate(self.policy, part, lambda data: data.to(device))


def relocate(policy: Any, part: Part, to: Callable[[Tensor], Tensor]) -> None:
    """Replace the memory behind every tensor of a part."""
    for tensor in tensors_of(policy, part):
        tensor.data = to(tensor.data)


def tensors_of(policy: Any, part: Part) -> Iterator[Tensor]:
    """The tensors of one part; no tensor belongs to two.

    An fp32 policy is its own master weights: these count as ``policy``. Moments exist after the first
    update; gradients only within one.
    """
    if part == "optimizer":
        optimizer = policy.optimizer
        for name, master in optimizer.master.items():
            if master is not optimizer.compute[name]:
                yield master
            yield from optimizer.adamw.state.get(master, {}).values()
    else:
        module = policy.model if part == "policy" else policy.reference
        yield from module.parameters()
        yield from module.buffers()
