"""Which reward functions run a model's code in the sandbox, and what guards this machine from it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from align.reward.functions.registry import RewardFunction

_SANDBOX = "align.reward.sandbox"


def sandbox_note(functions: Iterable[RewardFunction | None]) -> str | None:
    """One line: the functions that use the sandbox and what guards each thing; None where none does.

    It is about the machine of this process, and asks a sandbox that is started and ended for it.

    Args:
        functions: of the terms; None for one that a model computes.

    Raises:
        SandboxError: the sandbox does not start.
    """
    users = dict.fromkeys(each.name for each in functions if each and uses_sandbox(each.function))
    if not users:
        return None
    from align.reward.sandbox import Sandbox

    with closing(Sandbox()) as sandbox:
        found = sandbox.protection()
    guards = []
    for line in str(found).splitlines():
        thing, _, guard = line.partition(" ")
        guards.append(line if line.startswith("(") else f"{thing}: {guard.strip()}")
    return f"sandbox of {', '.join(users)} on this machine: {'; '.join(guards)}"


def uses_sandbox(function: Callable[..., Any]) -> bool:
    """Whether the module that defines a function has imported something from the sandbox."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    return module is not None and any(_home(value).startswith(_SANDBOX) for value in vars(module).values())


def _home(value: Any) -> str:
    """The module of a value; of a module its own name."""
    return str(getattr(value, "__module__", None) or getattr(value, "__name__", ""))
