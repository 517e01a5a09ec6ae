"""What this machine has: the GPU, the versions, and which packages are missing."""

from __future__ import annotations

import importlib.util
import os
import platform

import part


def main(device: str, report: part.Report) -> None:
    import torch
    import transformers

    figures = report.figures
    figures |= {"python": platform.python_version(), "torch": torch.__version__}
    figures |= {"transformers": transformers.__version__, "CUDA": torch.version.cuda or "none"}
    figures["cores"] = len(os.sched_getaffinity(0))
    missing = [name for name in ("vllm", "ray", "trl", "peft") if importlib.util.find_spec(name) is None]
    figures["missing"] = ", ".join(missing) or "none"
    figures["stood in"] = ", ".join(part.STOOD_IN) or "none"
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        figures |= {"GPU": about.name, "GiB": about.total_memory / 2**30}
        figures["capability"] = f"{about.major}.{about.minor}"


if __name__ == "__main__":
    part.run(main)
