"""How long are the rows that an engine must hold, and can the model read them?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.recipe import GrpoRecipe
from align.errors import RecipeError
from align.types import Prompt


@dataclass(frozen=True, slots=True)
class Context:
    """The longest row that the engine is asked for."""

    tokens: int
    key: str
    """Of the recipe: what makes it that long."""


def longest_context(
    recipe: GrpoRecipe, prompts: Iterable[Prompt], held_out: Mapping[str, Iterable[Prompt]]
) -> Context:
    """Of the prompts and completions of training, and of the held-out prompts and their answers."""
    trained = _longest(prompts) + recipe.rollout.max_new_tokens
    asked = [prompt for part in held_out.values() for prompt in part]
    measured = _longest(asked) + recipe.eval.max_new_tokens if asked else 0
    if measured > trained:
        return Context(measured, "eval.max_new_tokens")
    return Context(trained, "rollout.max_new_tokens")


def _longest(prompts: Iterable[Prompt]) -> int:
    return max((len(prompt.token_ids) for prompt in prompts), default=0)


def check_positions(context: Context, config: Any, *, file: Path) -> None:
    """Refuse rows that the model has no positions for.

    Args:
        context: the longest of them.
        config: the policy's, of transformers.
        file: the recipe.

    Raises:
        RecipeError: there is a longer one.
    """
    positions = longest_position(config.get_text_config())
    if positions is not None and context.tokens > positions:
        raise RecipeError(
            f"the longest prompt and an answer may have {context.tokens} tokens together, "
            f"the model reads at most {positions}",
            file=file,
            key=context.key,
            remedy=f"lower it, or the longest prompt, by {context.tokens - positions} tokens or more",
        )


def check_lengths(longest: int, config: Any, *, key: str, file: Path, row: str) -> None:
    """Refuse training on rows that the model has no positions for.

    Args:
        longest: tokens of the longest row, as it is cut.
        config: the policy's, of transformers.
        key: of the recipe, which limits rows.
        file: the recipe.
        row: the name of that row.

    Raises:
        RecipeError: the model reads fewer tokens.
    """
    positions = longest_position(config.get_text_config())
    if positions is not None and longest > positions:
        raise RecipeError(
            f"row {row} has {longest} tokens, the model reads at most {positions}",
            file=file,
            key=key,
            remedy=f"set {key} to at most {positions}",
        )


def longest_position(config: Any) -> int | None:
    """Tokens that a model can read, as its configuration says; None where it does not say.

    ``max_position_embeddings`` is that number, but for rotary embeddings that are stretched at run time
    (``linear``, ``dynamic``), whose configurations have the number of before.
    """
    positions = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type")) if isinstance(rope, Mapping) else None
    if positions and kind in ("linear", "dynamic"):
        return int(positions * rope.get("factor", 1.0))
    return positions
