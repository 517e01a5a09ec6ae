"""Which part of a whole tensor a rank holds, as a box: first index and length in each dimension."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Shard, _StridedShard


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a tensor."""

    start: tuple[int, ...]
    size: tuple[int, ...]

    def overlap(self, other: Box) -> Box | None:
        """What lies in both, in the coordinates of both; None where nothing does."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        mine = (a + n for a, n in zip(self.start, self.size, strict=True))
        theirs = (b + n for b, n in zip(other.start, other.size, strict=True))
        size = tuple(min(a, b) - first for first, a, b in zip(start, mine, theirs, strict=True))
        return Box(start, size) if all(n > 0 for n in size) else None

    def within(self, outer: Box) -> tuple[slice, ...]:
        """Slices of ``outer``'s tensor that are this box."""
        return tuple(
            slice(first - begin, first - begin + n)
            for first, begin, n in zip(self.start, outer.start, self.size, strict=True)
        )


def box_of(parameter: Tensor) -> Box:
    """Of what this rank holds of a parameter; a plain tensor is held whole."""
    if not isinstance(parameter, DTensor):
        return Box((0,) * parameter.ndim, tuple(parameter.shape))
    start, size = [0] * parameter.ndim, list(parameter.shape)
    mesh = parameter.device_mesh
    # Experts are cut by expert parallelism first, though its dimension of the mesh is the last.
    for place in reversed(range(mesh.ndim)):
        how = parameter.placements[place]
        if not isinstance(how, Shard | _StridedShard):  # the second: experts over two dimensions
            continue
        step = -(-size[how.dim] // mesh.size(place))  # torch.chunk
        first = min(mesh.get_local_rank(place) * step, size[how.dim])
        start[how.dim] += first
        size[how.dim] = min(step, size[how.dim] - first)
    return Box(tuple(start), tuple(size))
