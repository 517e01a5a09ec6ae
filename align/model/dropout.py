"""Switching off what makes a model in training mode answer differently each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

NOISE = ("drop", "jitter")
"""Parts of the names under which modules and configurations keep the strength of such noise."""


def disable_dropout(model: Any) -> None:
    """Set every dropout of a transformers model, and the jitter of routers, to 0, for good.

    Training mode stays what it is: gradient checkpointing needs it. The configuration changes too, since
    some layers read it when they run; models saved from this one say 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in _noise(vars(module)):
            setattr(module, name, 0.0)
    for config in (model.config, model.config.get_text_config()):
        for name in _noise(vars(config)):
            setattr(config, name, 0.0)


def _noise(values: dict[str, Any]) -> Iterator[str]:
    for name, value in list(values.items()):
        if isinstance(value, float) and any(part in name for part in NOISE):
            yield name
