"""Importing other people's files: under which name, from where, and which line of theirs failed."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path


def package_of(folder: Path) -> str:
    """Name of the package that stands for a folder of reward files.

    A folder inside of a package (it has an ``__init__.py``) is found under the package's outermost folder, so
    that ``from ..helper import …`` goes up in it.
    """
    if (folder / "__init__.py").exists() and (folder.parent / "__init__.py").exists():
        name = f"{package_of(folder.parent)}.{folder.name}"
        if name not in sys.modules:
            importlib.import_module(name)
        return name
    name = f"align_rewards_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return name


def last_line(error: BaseException) -> str:
    """What a traceback ends with."""
    return traceback.format_exception_only(error)[-1].strip()


def line_in(path: Path, error: BaseException) -> str:
    """`` (line 7)``: where in ``path`` the import went wrong."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" (line {error.lineno})"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f" (line {lines[-1]})" if lines else ""


def importable(name: str) -> bool:
    """Whether a module of that name is installed, or stands in the working directory."""
    look_here()
    return importlib.util.find_spec(name) is not None


def look_here() -> None:
    """Let imports find modules of the working directory, as under ``python -m``."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
