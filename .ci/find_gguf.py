"""Print the path of the GGUF file inside an installed package, without importing the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def find_gguf(package: str) -> Path:
    """The first .gguf file in the package's folder.

    Raises:
        SystemExit: the package or the file is missing.
    """
    found = importlib.util.find_spec(package)
    folders = list(found.submodule_search_locations or []) if found else []
    files = sorted(file for folder in folders for file in Path(folder).rglob("*.gguf"))
    if not files:
        raise SystemExit(f"no .gguf file in the package {package}; remedy: make smollm2")
    return files[0]


if __name__ == "__main__":
    print(find_gguf(sys.argv[1]))
