"""The models of a policy: the one that is trained and its frozen reference, compiled or sharded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from align.config.recipe import GrpoRecipe
from align.model.attention.shared_prefix import use_shared_prefix
from align.model.compiled import compile_layers
from align.model.dropout import disable_dropout
from align.model.files.load import load_model
from align.model.files.load_parts import can_load_in_parts, load_in_parts
from align.model.files.lora import add_lora, begin_adapters
from align.model.logprobs import completion_logprobs
from align.model.ranks.layout import Ranks
from align.model.ranks.shard import shard


def build_policy(recipe: GrpoRecipe, device: str, ranks: Ranks) -> tuple[Any, Any]:
    """Policy and reference.

    Of several ranks each reads its own parts from the files. Fresh weights (``init: random``), and a model
    whose files have other names than align writes, every rank builds whole and then keeps its part.

    Args:
        recipe: policy and algorithm are read.
        device: ``cpu`` or ``cuda``.
        ranks: of this process.

    Returns:
        (policy, reference): the second is None where β is 0, or where it is the policy without its adapters.

    Raises:
        ModelError: nothing usable at ``policy.path``.
    """
    if ranks.world > 1 and can_load_in_parts(recipe.policy):
        return _in_parts(recipe, device, ranks)
    model: Any = load_model(recipe.policy, seed=recipe.seed, device=device)
    _prepare(model)
    reference = None
    if recipe.policy.lora:
        model = add_lora(model, recipe.policy.lora)
        begin_adapters(model, recipe.seed)
    elif recipe.grpo.beta > 0:
        reference = copy.deepcopy(model).requires_grad_(False).eval()
    for each in (model.train(), reference):
        if each is not None and ranks.world == 1:
            compile_layers(each, recipe.policy.compile, on_cpu=device == "cpu")
        elif each is not None:
            _shard(each, recipe, device, ranks)
    return model, reference


def _in_parts(recipe: GrpoRecipe, device: str, ranks: Ranks) -> tuple[Any, Any]:
    policy = recipe.policy
    dtype: torch.dtype = getattr(torch, policy.dtype)

    def trained(model: Any) -> Any:
        _prepare(model.train())
        model = add_lora(model, policy.lora) if policy.lora else model
        _shard(model, recipe, device, ranks)
        return model

    def frozen(model: Any) -> Any:
        _prepare(model.requires_grad_(False).eval())
        _shard(model, recipe, device, ranks)
        return model

    def part(layout: Callable[[Any], Any], dtype: torch.dtype) -> Any:
        return load_in_parts(policy, dtype, layout, device=device, seed=recipe.seed)

    if policy.lora:
        return part(trained, dtype), None
    return part(trained, torch.float32), part(frozen, dtype) if recipe.grpo.beta > 0 else None


def _prepare(model: Any) -> None:
    """Let a model compute packed rows, and the same as the engine that samples, which has no dropout."""
    use_shared_prefix(model)
    disable_dropout(model)


def _shard(model: Any, recipe: GrpoRecipe, device: str, ranks: Ranks) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    compute = getattr(torch, recipe.policy.dtype)
    shard(model, ranks, device=device, compute=compute, completions=completion_logprobs)
