"""Checkpoint files of a sharded optimiser: each rank writes what it holds, any number of ranks reads it.

One safetensors file a rank. Beside each tensor its metadata say which part of the whole it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from align.errors import CheckpointError
from align.model.ranks.boxes import Box
from align.model.ranks.layout import Ranks

_PARTS = "parts"
"""Key of the metadata."""


def write_parts(
    tensors: Mapping[str, Tensor], boxes: Mapping[str, Box], folder: Path, stem: str, ranks: Ranks
) -> None:
    """Write this rank's parts.

    Args:
        tensors: by name, each as large as its box.
        boxes: by name; a tensor without one is whole and the same on every rank.
        folder: where all ranks write.
        stem: of the file's name.
        ranks: of this process.
    """
    held = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor.numel()}
    parts = {name: [boxes[name].start, boxes[name].size] for name in held if name in boxes}
    save_file(held, folder / _file(stem, ranks.rank, ranks.world), {_PARTS: json.dumps(parts)})


def read_parts(folder: Path, stem: str, wanted: Mapping[str, Box], device: str) -> dict[str, Tensor]:
    """What this rank holds, put together from the files of all ranks that wrote.

    Args:
        folder: of the files.
        stem: of their names.
        wanted: the box of each tensor that is held in part; all others are read whole.
        device: where they go.

    Raises:
        CheckpointError: some part of a tensor is in no file.
    """
    found: dict[str, Tensor] = {}
    filled: dict[str, int] = {}
    for file in files(folder, stem):
        with safe_open(file, framework="pt", device="cpu") as stored:
            parts = json.loads((stored.metadata() or {}).get(_PARTS, "{}"))
            for name in stored.keys():  # noqa: SIM118, it is no mapping
                if name not in wanted:
                    found.setdefault(name, stored.get_tensor(name).to(device))
                    continue
                piece, own = stored.get_slice(name), wanted[name]
                box = Box(*map(tuple, parts[name])) if name in parts else _whole(piece.get_shape())
                common = box.overlap(own)
                if common is None:
                    continue
                data = piece[common.within(box)]
                target = found.setdefault(name, torch.empty(own.size, dtype=data.dtype, device=device))
                target[common.within(own)] = data.to(device)
                filled[name] = filled.get(name, 0) + data.numel()
    for name in wanted.keys() & found.keys():
        size = torch.Size(wanted[name].size).numel()
        if filled[name] != size:
            raise CheckpointError(
                f"{name} is there in part only: {filled[name]:,} of {size:,} values",
                file=folder,
                remedy="all ranks must write to the same file system; continue from an earlier checkpoint",
            )
    return found


def _whole(shape: Sequence[int]) -> Box:
    return Box((0,) * len(shape), tuple(shape))


def files(folder: Path, stem: str) -> Iterator[Path]:
    """The files of all ranks that wrote.

    Raises:
        CheckpointError: one is missing.
    """
    there = sorted(folder.glob(f"{stem}-*-of-*.safetensors"))
    count = int(there[0].stem.rpartition("-")[2]) if there else 1
    for rank in range(count):
        file = folder / _file(stem, rank, count)
        if not file.is_file():
            raise CheckpointError(
                f"{file.name} is missing",
                file=folder,
                remedy="all ranks must write to the same file system; continue from an earlier checkpoint",
            )
        yield file


def _file(stem: str, rank: int, world: int) -> str:
    return f"{stem}-{rank:05}-of-{world:05}.safetensors"
