"""Partial rollouts (Kimi k1.5, arXiv 2501.12599 §2.6): long completions are cut and go on in the next step.

With ``rollout.partial_tokens`` no step waits for its longest completions. A completion that has used up its
tokens is cut, and its group is *carried*: neither scored nor trained on, it is one of the next step's
groups, where the engine continues the cut completions under the weights of then. Log-probabilities stay
those that each token was sampled with, so the importance weight π_old / π_rollout of ``algo.importance``
covers the updates in between; ``Completion.versions`` says which weights wrote which tokens.

The groups carried are the list ``Parts.carried``. Here is what surrounds it: the check of the recipe, the
age of tokens, and the form in which groups are kept in a checkpoint.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.config.recipe import GrpoRecipe
from align.errors import CheckpointError, RecipeError
from align.types import Completion, Group, Prompt


def check_partial(recipe: GrpoRecipe, *, file: Path) -> None:
    """Refuse what cannot be combined.

    Raises:
        RecipeError: tokens of earlier policies would go uncorrected.
    """
    if recipe.rollout.partial_tokens is not None and recipe.grpo.importance.level == "off":
        raise RecipeError(
            "a continued completion was begun by earlier policies, which only importance weights correct",
            file=file,
            key="rollout.partial_tokens",
            remedy="set grpo.importance.level to token or sequence, or leave partial_tokens out",
        )


def staleness(groups: Iterable[Group], newest: int) -> dict[str, float]:
    """Age of a step's finished tokens, in updates: mean and largest; empty without tokens.

    Args:
        groups: finished groups.
        newest: version of the policy before the step's update.
    """
    spans = [
        (newest - version, tokens)
        for group in groups
        for each in group.completions
        for version, tokens in each.versions
    ]
    total = sum(tokens for _, tokens in spans)
    if not total:
        return {}
    return {
        "rollout/staleness": sum(age * tokens for age, tokens in spans) / total,
        "rollout/staleness_max": float(max(age for age, _ in spans)),
    }


def pack(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Groups as JSON values, exactly; the prompts by their ids."""
    return [
        {"prompt_id": group.prompt.id, "completions": [_pack(each) for each in group.completions]}
        for group in groups
    ]


def unpack(packed: Sequence[Mapping[str, Any]], prompts: Sequence[Prompt]) -> list[Group]:
    """The groups again.

    Args:
        packed: of :func:`pack`.
        prompts: all prompts of the run.

    Raises:
        CheckpointError: a prompt is not among them.
    """
    known = {prompt.id: prompt for prompt in prompts}
    for group in packed:
        if group["prompt_id"] not in known:
            raise CheckpointError(
                f"the checkpoint holds unfinished completions of prompt {group['prompt_id']}, "
                "which the data no longer has",
                key="data",
                remedy="resume with the data of the checkpoint, or start a new run",
            )
    return [
        Group(known[name := group["prompt_id"]], [_unpack(name, each) for each in group["completions"]])
        for group in packed
    ]


def _pack(one: Completion) -> dict[str, Any]:
    return {
        "sample_index": one.sample_index,
        "token_ids": _text(np.array(one.token_ids, np.int32)),
        "logprobs": _text(np.array(one.logprobs, np.float64)),
        "text": one.text,
        "finish_reason": one.finish_reason,
        "seed": one.seed,
        "routed_experts": None if one.routed_experts is None else _text(one.routed_experts),
        "versions": [list(span) for span in one.versions],
    }


def _unpack(prompt_id: str, packed: Mapping[str, Any]) -> Completion:
    experts = packed["routed_experts"]
    versions = tuple((version, tokens) for version, tokens in packed["versions"])
    return Completion(
        prompt_id=prompt_id,
        sample_index=packed["sample_index"],
        token_ids=_array(packed["token_ids"]).tolist(),
        logprobs=_array(packed["logprobs"]).tolist(),
        text=packed["text"],
        finish_reason=packed["finish_reason"],
        weight_version=versions[0][0],
        seed=packed["seed"],
        routed_experts=None if experts is None else _array(experts),
        versions=versions,
    )


def _text(array: NDArray[Any]) -> dict[str, Any]:
    """Compact: as JSON numbers, one line each, long completions would fill a checkpoint's state."""
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"type": array.dtype.str, "shape": list(array.shape), "data": data}


def _array(text: Mapping[str, Any]) -> NDArray[Any]:
    flat = np.frombuffer(base64.b64decode(text["data"]), np.dtype(text["type"]))
    return flat.reshape(text["shape"]).copy()  # a buffer's array cannot be written to
