"""Where a model's configuration is found without a network."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from align.errors import ModelError
from align.plan.sizes import check_sizes


def read_config(path: str) -> dict[str, Any]:
    """The configuration behind ``policy.path``, without a network.

    Args:
        path: a model directory, a run directory (its final model), or the hub id of a model whose
            shape ships with align (see :func:`known_models`) or that is in the local hub cache.

    Raises:
        ModelError: no configuration there, or what is there is none.
    """
    folder = Path(path)
    for place in (folder, folder / "final", folder / "model"):
        if (place / "config.json").is_file():
            return read_file(place / "config.json")
    name = path.removesuffix("-Chat").replace("/", "--")  # the chat models have the base models' shapes
    known = resources.files("align.plan") / "known" / f"{name}.json"
    if known.is_file():
        return _parse(known.read_text(encoding="utf-8"), path)
    cached = _cached_config(path)
    if cached is not None:
        return read_file(cached)
    raise ModelError(
        "no config.json of this model on this machine, so nothing can be planned",
        file=path,
        key="policy.path",
        remedy=f"name a local model directory, or one of {', '.join(known_models())}",
    )


def known_models() -> list[str]:
    """Hub ids whose shapes ship with align."""
    names = [entry.name for entry in (resources.files("align.plan") / "known").iterdir()]
    return sorted(name.removesuffix(".json").replace("--", "/") for name in names if name.endswith(".json"))


def _cached_config(path: str) -> Path | None:
    """The config.json of a hub model that was downloaded before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(path, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def read_file(file: Path) -> dict[str, Any]:
    """A config.json.

    Raises:
        ModelError: it is no mapping, or holds no number where one belongs.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot be read: {error}", file=file, remedy="restore the file") from error
    return _parse(text, file)


def _parse(text: str, file: str | Path) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"not valid JSON: {error}", file=file, remedy="restore the file") from error
    if not isinstance(config, dict):
        raise ModelError("a model configuration is a mapping", file=file, remedy="restore the file")
    check_sizes(config, file=file)
    return config
