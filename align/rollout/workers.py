"""Worker processes of an engine that several devices share.

vLLM starts them by ``spawn``: nothing that was set up in the engine's own process is there.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from typing import Any

import torch._dynamo

from align.rollout.fp32_gate import use_fp32_gates

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""


def worker_arguments(tensor_parallel: int) -> dict[str, Any]:
    """Arguments of ``vllm.LLM`` for an engine on so many devices; none for one, which needs no worker."""
    if tensor_parallel == 1:
        return {}
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # all would take the same cores
    return {"tensor_parallel_size": tensor_parallel, "distributed_executor_backend": "mp"}


def set_up_worker() -> None:
    """In a worker process: what the engine's own process has, and an end together with it."""
    if multiprocessing.parent_process() is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if not torch.cuda.is_available():
        torch._dynamo.config.disable = True
        use_fp32_gates()
