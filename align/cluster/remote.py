"""Waiting for actors, with errors a user can act on."""

from __future__ import annotations

from typing import Any

import ray

from align.errors import EngineError


def wait(answer: Any, actor: str, seconds: float | None = None) -> Any:
    """The value of a remote call.

    Args:
        answer: what ``method.remote(…)`` returned.
        actor: what to call its process in a message.
        seconds: how long to wait; default: until the answer comes.

    Raises:
        EngineError: the process died, or did not answer in time. Errors that the call itself raised come
            through as they are.
    """
    try:
        return ray.get(answer, timeout=seconds)
    except ray.exceptions.GetTimeoutError as error:
        raise EngineError(
            f"the {actor} process did not answer within {seconds:g} s",
            remedy="it hangs, or the machine is too slow for the limit. "
            "Continue from the last checkpoint with --resume",
        ) from error
    except ray.exceptions.RayActorError as error:
        reason = next((line.strip() for line in str(error).splitlines() if "exit" in line), "no reason known")
        raise EngineError(
            f"the {actor} process died: {reason}",
            remedy="often it ran out of memory; Ray's logs are in /tmp/ray/session_latest/logs. "
            "Continue from the last checkpoint with --resume",
        ) from error
