"""Waiting for actors, with errors a user can act on."""

from __future__ import annotations

from typing import Any

import ray

from align.errors import EngineError


def wait(answer: Any, actor: str) -> Any:
    """The value of a remote call.

    Args:
        answer: what ``method.remote(…)`` returned.
        actor: what to call its process in a message.

    Raises:
        EngineError: the process died. Errors that the call itself raised come through as they are.
    """
    try:
        return ray.get(answer)
    except ray.exceptions.RayActorError as error:
        reason = next((line.strip() for line in str(error).splitlines() if "exit" in line), "no reason known")
        raise EngineError(
            f"the {actor} process died: {reason}",
            remedy="often it ran out of memory; Ray's logs are in /tmp/ray/session_latest/logs. "
            "Continue from the last checkpoint with --resume",
        ) from error
