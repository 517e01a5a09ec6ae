"""Kinds of instructions from a file of the user's."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from align.reward import RewardError

_NAME = "INSTRUCTIONS"


@lru_cache(maxsize=16)
def kinds_in(file: str) -> Mapping[str, Callable[..., bool]]:
    """The mapping ``INSTRUCTIONS`` of a Python file: a kind's name to its check.

    Raises:
        RewardError: there is no such file, it cannot be imported, or has no such mapping of functions.
    """
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise RewardError(f"no such file: {file}", key="kinds", remedy="correct the path")
    name = f"align_kinds_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RewardError("not a Python file", file=path, key="kinds", remedy="give the file the ending .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RewardError(
            f"cannot be imported: {type(error).__name__}: {error}",
            file=path,
            key="kinds",
            remedy="mend the file",
        ) from error
    found = getattr(module, _NAME, None)
    if not isinstance(found, Mapping) or not all(
        isinstance(k, str) and callable(v) for k, v in found.items()
    ):
        raise RewardError(
            f"has no mapping {_NAME} of names to functions",
            file=path,
            key=_NAME,
            remedy=f'write {_NAME} = {{"my:kind": f}}, where f(text, **arguments) returns a bool',
        )
    return dict(found)
