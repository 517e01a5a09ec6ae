"""Data of a dry run: seen, or why it cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import try_to_load_from_cache

from align.config.recipe import RewardModelRecipe, SftRecipe
from align.errors import AlignError, DataError
from align.model.files.hub import on_hub

R = TypeVar("R", SftRecipe, RewardModelRecipe)
P = TypeVar("P")


def prepared_or_unseen(
    recipe: R, prepare: Callable[..., P], *, file: Path
) -> tuple[P, None] | tuple[None, str]:
    """What ``prepare(recipe, file=file)`` gives, or why the data cannot be seen.

    A model or data set that is only on the hub, when the hub is out of reach, is no error: the plan needs
    no more than the model's shape.

    Raises:
        AlignError: as ``prepare`` does, for what is on this machine.
    """
    tokenizer = recipe.policy.tokenizer or recipe.policy.path
    for source in (recipe.policy.path, tokenizer):
        if on_hub(source) and not isinstance(try_to_load_from_cache(source, "config.json"), str):
            return None, f"the model {source} is on the hub and not on this machine"
    try:
        return prepare(recipe, file=file), None
    except DataError as error:
        if not _about_hub(error, recipe):
            raise
        return None, error.message


def _about_hub(error: AlignError, recipe: SftRecipe | RewardModelRecipe) -> bool:
    """Whether the error says that a hub data set is out of reach."""
    key = error.key or ""
    part = re.fullmatch(r"data\.parts\.(.+)\.path", key)
    path = recipe.data.parts[part[1]].path if part else recipe.data.path
    return key.endswith(".path") and path is not None and on_hub(path)
