"""Loading a policy by ranks: each reads from the files what it holds, and no process ever holds it whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor

from align.config.policy import PolicyConfig
from align.errors import ModelError
from align.model.files.hf_stream import base_model, in_checkpoint, own_tensors
from align.model.files.hub import fetched
from align.model.files.load import build_model, resolve_model
from align.model.files.lora import adapters, fresh_adapter
from align.model.ranks.boxes import Box, box_of
from align.model.ranks.shard import local_part
from align.weights.headers import stored_tensors, weight_files

Pieces = Mapping[str, Box]
"""Checkpoint name → the part of a parameter that it is."""


def can_load_in_parts(policy: PolicyConfig) -> bool:
    """Whether the weights lie in files under the names that align writes them under; those of a hub model are
    fetched."""
    source = fetched(resolve_model(policy.path)) if policy.init == "pretrained" else None
    if source is None:
        return False
    with init_empty_weights():
        model = build_model(policy, torch.float32)
    written = {name for own, tensor in own_tensors(model) for name in in_checkpoint(model, own, tensor)}
    return written == set(stored_tensors(source))


def load_in_parts(
    policy: PolicyConfig, dtype: torch.dtype, lay_out: Callable[[Any], Any], *, device: str, seed: int
) -> Any:
    """The policy's model, sharded.

    Args:
        policy: :func:`can_load_in_parts` says that it can.
        dtype: of the shards.
        lay_out: shards a model that has no memory yet, in place; returns it, or a peft model around it.
        device: ``cpu`` or ``cuda``.
        seed: of the run; what adapters begin with derives from it.

    Raises:
        ModelError: a tensor of the files has another shape than its place in the model.
    """
    with init_empty_weights(include_buffers=False):
        model = build_model(policy, dtype)
    base = base_model(model)
    pieces = {name: pieces_of(base, name, tensor) for name, tensor in own_tensors(base)}
    model = lay_out(model)
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=device)
    saved = base.state_dict().keys()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        held = {name.replace(".base_layer.", "."): each for name, each in base.named_parameters()}
        held |= {name: each for name, each in base.named_buffers() if name in saved}
        source = fetched(resolve_model(policy.path))
        assert source is not None
        _fill(held, pieces, source)
        for name, parameter in adapters(model) if base is not model else ():
            value = fresh_adapter(name, parameter.shape, seed)
            own = box_of(parameter)
            local_part(parameter).copy_(value[own.within(Box((0, 0), tuple(value.shape)))])
    return model


def pieces_of(model: Any, name: str, tensor: Tensor) -> Pieces:
    """Where each checkpoint tensor of a parameter lies in it.

    Args:
        model: tells the architecture.
        name: of the parameter.
        tensor: the whole of it; without memory will do.

    Raises:
        ModelError: a checkpoint tensor is no block of the parameter.
    """
    found: dict[str, Box] = {}
    strides = tensor.stride()
    for key, view in in_checkpoint(model, name, tensor).items():
        left, start = view.storage_offset() - tensor.storage_offset(), []
        for stride in strides:
            start.append(left // stride if stride else 0)
            left %= stride or 1
        lead = tensor.ndim - view.ndim
        if lead < 0 or view.stride() != strides[lead:]:
            raise ModelError(
                f"{key} is stored otherwise than the model holds it, so ranks cannot read their parts of it",
                key="cluster.processes",
                remedy="set it to 1 for this architecture",
            )
        found[key] = Box(tuple(start), (1,) * lead + tuple(view.shape))
    return found


def _fill(held: Mapping[str, Tensor], pieces: Mapping[str, Pieces], source: Path) -> None:
    """Read what this rank holds."""
    wanted = {key: (name, box) for name, parts in pieces.items() for key, box in parts.items()}
    for key, stored in _stored(source):
        name, piece = wanted[key]
        own, part = box_of(held[name]), local_part(held[name])
        common = piece.overlap(own)
        if tuple(stored.get_shape()) != piece.size[len(piece.size) - len(stored.get_shape()) :]:
            raise ModelError(
                f"{key} is stored as {list(stored.get_shape())}, its place has {list(piece.size)}",
                file=source,
                remedy="use the config.json that belongs to these weights",
            )
        if common is not None:
            lead = len(piece.size) - len(stored.get_shape())
            data = stored[common.within(piece)[lead:]]
            target = part[common.within(own)]
            target.copy_(data.view(target.shape))


def _stored(source: Path) -> Iterator[tuple[str, Any]]:
    for file in weight_files(source):
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118, it is no mapping
                yield key, stored.get_slice(key)
