"""Whether a model has to come from the hub, and whether the hub is there."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from huggingface_hub import get_session, is_offline_mode, snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT

from align.errors import ModelError

_log = logging.getLogger(__name__)


def on_hub(path: str) -> bool:
    """Whether a path can only be a hub id: nothing local has that name, and it has a hub id's form."""
    return not Path(path).expanduser().exists() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) is not None


def fetched(path: str) -> Path | None:
    """The directory of a model's files; those of a hub model are fetched into the hub's cache.

    Args:
        path: a model directory or hub id.

    Returns:
        None where neither is to be had; loading says why.
    """
    if not on_hub(path):
        return Path(path) if Path(path).is_dir() else None
    try:
        return Path(snapshot_download(path, allow_patterns=["model*.safetensors*", "*.json"]))
    except (OSError, ValueError) as error:  # network, name, gate, disk
        _log.debug("cannot fetch %s: %s", path, error)
        return None


def reach_hub(path: str, *, file: str | Path | None = None, key: str = "policy.path") -> None:
    """Fail at once where the libraries would try six times to reach the hub.

    Args:
        path: a model directory or hub id; directories and cached models pass.
        file: recipe, for the message.
        key: the recipe's key that names the model.

    Raises:
        ModelError: the model is neither here nor can it be fetched.
    """
    if not on_hub(path) or is_offline_mode() or isinstance(try_to_load_from_cache(path, "config.json"), str):
        return
    try:
        get_session().head(ENDPOINT, timeout=5)
    except Exception as error:  # name, route, proxy, certificate, time: whatever the cause
        raise ModelError(
            f"the model {path!r} is not on this machine, and the hub ({ENDPOINT}) cannot be reached",
            file=file,
            key=key,
            remedy=f"set {key} to a local model directory, or run where the hub is in reach",
        ) from error
