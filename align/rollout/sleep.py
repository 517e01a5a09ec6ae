"""What a rollout engine gives back while it sleeps, and how it wakes.

On a GPU this is vLLM's sleep mode, by tag. On a CPU vLLM has none; there the memory pages of the KV
cache and of the weights go back to the system while every tensor keeps its address, so whatever
holds on to one (a kernel, a compiled graph) stays valid. Such pages read as zeros until they are
written again. Weights are not kept anywhere: a push must follow before the engine is asked.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor

from align.errors import EngineError
from align.plan.residency import Part

_MADV_DONTNEED, _MADV_HUGEPAGE = 4, 14  # Linux; Python's mmap has them for its own maps only


REST_STEPS = 16
"""More than any engine needs: one, two under asynchronous scheduling, one more a stage of a pipeline."""


class Sleeper(Protocol):
    """The way an engine sleeps on one kind of device. Called in turn, never twice for the same part."""

    def sleep(self, part: Part) -> None: ...
    def wake(self, part: Part) -> None: ...
    def forget_cache(self) -> None: ...


class CpuSleeper:
    """Gives pages back; they return by themselves when they are written."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm

    def sleep(self, part: Part) -> None:
        self.llm.collective_rpc("free_kv_cache" if part == "kv_cache" else "free_weights")

    def wake(self, part: Part) -> None:
        """Nothing to do."""

    def forget_cache(self) -> None:
        """No KV block counts any more, so none needs pages: of a cache made for the worst case only what a
        step fills is resident. vLLM writes zeros into all of it at the start, and uses its blocks in turn."""
        self.llm.collective_rpc("free_kv_cache")


class GpuSleeper:
    """vLLM's own sleep mode. Written against its source and not tried on a GPU."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm

    def sleep(self, part: Part) -> None:
        if part == "kv_cache":
            finish_steps(self.llm)
            self.llm.sleep(level=0)  # no request is scheduled while it is away
            self.llm.release_kv_cache_memory()
        else:
            self.llm.sleep(level=2)  # weights are discarded, buffers kept in main memory

    def wake(self, part: Part) -> None:
        self.llm.wake_up(["kv_cache" if part == "kv_cache" else "weights"])

    def forget_cache(self) -> None:
        """Nothing: its memory is reserved."""


def finish_steps(llm: Any) -> None:
    """Step an in-process engine until nothing of its answered requests is left in it.

    When the last answer is out, the scheduler still has the ids of finished requests to tell the worker of,
    and under asynchronous scheduling a batch is under way; vLLM frees no cache before both are gone.

    Raises:
        EngineError: it has not come to rest after ``REST_STEPS``.
    """
    core = llm.llm_engine.engine_core.engine_core
    for _ in range(REST_STEPS):
        if not (core.scheduler.has_requests() or core.batch_queue):
            return
        llm.llm_engine.step()
    raise EngineError(
        f"the rollout engine does not come to rest in {REST_STEPS} steps after its last answer",
        remedy="set cluster.residency=resident",
    )


def free_kv_cache(model_runner: Any) -> None:
    """Give back the pages of all KV blocks. The prefix cache must have been reset."""
    _free_pages(model_runner.kv_caches)


def free_weights(model: Any) -> None:
    """Give back the pages of all parameters, and the packed copies that the CPU kernels compute with."""
    for module in model.modules():
        if getattr(module, "cpu_linear", None) is not None:
            module.cpu_linear = None
    _free_pages(model.parameters())
    ctypes.CDLL(None).malloc_trim(0)  # the packed copies were many small blocks


def check_filled(model: Any) -> None:
    """After a push: every kernel that :func:`free_weights` dropped is there again.

    Raises:
        EngineError: a layer got no weights.
    """
    empty = [name for name, module in model.named_modules() if getattr(module, "cpu_linear", 1) is None]
    if empty:
        raise EngineError(
            f"{len(empty)} layers of the engine got no weights after it slept, the first is {empty[0]}",
            remedy="set cluster.residency=resident",
        )


def _free_pages(tensors: Iterable[Tensor]) -> None:
    """Give back the whole pages inside the tensors' storages, which must be private memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    storages = {storage.data_ptr(): storage for storage in (each.untyped_storage() for each in tensors)}
    for start, storage in storages.items():
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        size = (start + storage.nbytes() - first) // mmap.PAGESIZE * mmap.PAGESIZE
        if size <= 0:
            continue
        where = ctypes.c_void_p(first), ctypes.c_size_t(size)
        if libc.madvise(*where, _MADV_DONTNEED):
            raise OSError(ctypes.get_errno(), "madvise")
        libc.madvise(*where, _MADV_HUGEPAGE)  # where the kernel has them, pages come back 6 times faster
