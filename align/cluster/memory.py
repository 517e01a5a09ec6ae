"""Peak memory of the processes of a run, stage by stage."""

from __future__ import annotations

import ctypes
import gc
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

_log = logging.getLogger(__name__)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's ``mallopt`` (malloc.h)."""


def keep_freed() -> None:
    """Let this process keep the memory that it frees, for itself.

    Every pass of a training step takes and frees the same large tensors. glibc returns those of 32 MiB and
    more to the system at once, and each page that comes back has to be found and cleared again: up to a
    fifth of SmolLM2's update. The peak stays what it was, and :meth:`PeakMemory.trim_where_short` gives
    back what others need. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(option, 2**31 - 1)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for cycles of garbage a hundred times less often than Python does by itself.

    Every look goes over all objects of a step, of which a driver of many engines has millions, and hardly
    any is in a cycle; those there are now are not looked at again.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100 * before[0], *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class PeakMemory:
    """The peak of this process since it was last asked for.

    On a CPU: its largest resident size (pages that processes share count in each). On a GPU: what is in
    use on the whole device, all processes together, when it is asked; an allocator keeps what it once
    took until a part moves, so that is the stage's peak.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._largest = 0.0
        _reset_resident()

    def take_gib(self) -> float:
        """GiB; the next peak begins here."""
        if self.device != "cpu":
            free, total = torch.cuda.mem_get_info()
            return (total - free) / 2**30
        peak = _peak_resident_gib()
        _reset_resident()
        self._largest = max(self._largest, peak)
        return peak

    def trim_where_short(self) -> None:
        """On a CPU that has less memory left than this process holds: give back what was freed and kept."""
        if self.device == "cpu" and psutil.virtual_memory().available < psutil.Process().memory_info().rss:
            ctypes.CDLL(None).malloc_trim(0)

    def largest_gib(self) -> float:
        """Largest resident size of this process so far, GiB."""
        return max(self._largest, _peak_resident_gib())


def _peak_resident_gib() -> float:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found.group(1)) / 2**20 if found else float("nan")


def _reset_resident() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    except OSError:
        _log.debug("this system cannot reset a peak: memory of a stage is that of the whole run so far")


def together(peaks_gib: Sequence[float], device: str) -> float:
    """Peak memory of a run from those of its processes, GiB: a GPU's peak is that of all on it."""
    return sum(peaks_gib) if device == "cpu" else max(peaks_gib)
