"""Waiting for actors, with errors a user can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from align.errors import AlignError, EngineError, ModelError

CULPRIT_SECONDS = 15
"""After a failure the others are asked for so long whether one of them died: Ray knows after some seconds."""
_CONNECTION = re.compile(r"gloo|nccl|connection (closed|reset)|timed out waiting|socket timeout", re.I)


class ActorLost(EngineError):
    """A process died, or its machine can no longer be reached."""


@contextmanager
def opening(what: str, *, file: str | Path, key: str) -> Iterator[None]:
    """Around what an actor loads, in a method: what its ``__init__`` raises Ray hides.

    Args:
        what: is loaded, for the message.
        file: where it is.
        key: of the recipe that names it.

    Raises:
        AlignError: as it is.
        ModelError: anything else that goes wrong, with its own words.
    """
    try:
        yield
    except AlignError:
        raise
    except MemoryError as error:
        raise EngineError(
            f"{what} does not fit into memory: {error}",
            file=file,
            key=key,
            remedy="`align plan` says what it needs",
        ) from error
    except Exception as error:  # libraries raise whatever they meet in the files
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ModelError(
            f"{what} cannot be loaded: {type(error).__name__}: {reason}",
            file=file,
            key=key,
            remedy="check the files of the model; --debug shows where it failed",
        ) from error


def wait(answer: Any, actor: str, seconds: float | None = None) -> Any:
    """The value of a remote call.

    Args:
        answer: what ``method.remote(…)`` returned.
        actor: what to call its process in a message.
        seconds: how long to wait; default: until the answer comes.

    Raises:
        ActorLost: the process died.
        EngineError: it did not answer in time. Errors that the call itself raised come through as they are.
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
        raise ActorLost(
            f"the {actor} process died: {reason}",
            remedy="often it ran out of memory; Ray's logs are in /tmp/ray/session_latest/logs. "
            "Continue from the last checkpoint with --resume",
        ) from error


def wait_all(answers: Sequence[Any], actor: str) -> list[Any]:
    """The values of calls to several processes that work together.

    Args:
        answers: what ``method.remote(…)`` returned, of each.
        actor: what to call one of the processes in a message; their number is added.

    Raises:
        ActorLost: one died; it is named, although the others fail, too, when they miss it.
        EngineError: one lost the others, and none is known to have died.
        Exception: what the first one that failed raised, as :func:`wait`. The others may hang then, waiting
            for it, and are not waited for.
    """
    left = {answer: f"{actor} {rank}" if len(answers) > 1 else actor for rank, answer in enumerate(answers)}
    fault: Exception | None = None
    while left:
        ready, _ = ray.wait(list(left), num_returns=1, timeout=CULPRIT_SECONDS if fault else None)
        if not ready:
            break
        name = left.pop(ready[0])
        try:
            wait(ready[0], name)
        except ActorLost:
            raise
        except Exception as error:
            fault = fault or _missed(error, name)
    if fault is not None:
        raise fault
    return [wait(each, actor) for each in answers]


def _missed(error: Exception, name: str) -> Exception:
    """What went wrong, in our words where it is the connection between processes that work together."""
    if isinstance(error, AlignError) or not _CONNECTION.search(str(error)):
        return error
    reason = next(line.strip() for line in reversed(str(error).splitlines()) if _CONNECTION.search(line))
    return EngineError(
        f"the {name} process lost the others it works with: {reason[:200]}",
        remedy="one of them hangs, or the network between their machines is broken. "
        "Continue from the last checkpoint with --resume",
    )
