"""Prompts for GRPO and for held-out measurements, rendered and tokenised once."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from align.config.data import DataConfig, EvalConfig
from align.config.grpo import GrpoConfig
from align.dataset.chat import render_prompt
from align.dataset.messages.beside import tools_column, tools_of
from align.dataset.messages.kept import check_kept
from align.dataset.messages.read import prompt_of
from align.dataset.messages.said import said
from align.dataset.messages.turns import check_text
from align.dataset.rows.mixture import shares
from align.dataset.rows.parts import Part, at_row, load_parts
from align.dataset.rows.sampler import PromptSampler
from align.errors import AlignError, DataError
from align.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["PromptSampler", "load_eval_prompts", "load_prompts"]

logger = logging.getLogger(__name__)


def load_prompts(
    data: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    grpo: GrpoConfig,
    *,
    file: str | Path | None = None,
) -> list[Prompt]:
    """Every prompt of a recipe, part after part.

    Args:
        data: the recipe's data section.
        tokenizer: with its template set (``chat.set_template``).
        grpo: ``max_prompt_tokens``, ``overlong_prompts`` and ``prompts_per_step`` are read.
        file: recipe, for error messages.

    Raises:
        DataError: from the sources, a malformed prompt or one over the limit (named as
            ``part/row``), or fewer prompts than a step needs.
        ModelError: the template is unusable.
        RecipeError: malformed weights or expressions.
    """
    parts = load_parts(data, file=file)
    kept = {part.name: _render(part, tokenizer, grpo, file=file, key="data") for part in parts}
    weights = {part.name: part.config.weight for part in parts}
    for name, share in shares({name: len(prompts) for name, prompts in kept.items()}, weights).items():
        needed = math.ceil(share * grpo.prompts_per_step - 1e-9)
        if needed > len(kept[name]):
            raise DataError(
                f"a step takes {needed} different prompts of part {name!r}, which has {len(kept[name])}",
                file=file,
                key="grpo.prompts_per_step",
                remedy="lower grpo.prompts_per_step or the part's weight, or give it more prompts",
            )
    return [prompt for prompts in kept.values() for prompt in prompts]


def load_eval_prompts(
    config: EvalConfig,
    tokenizer: PreTrainedTokenizerBase,
    grpo: GrpoConfig | None = None,
    *,
    file: str | Path | None = None,
) -> dict[str, list[Prompt]]:
    """The held-out prompts of each part of an eval section; no part, no prompts.

    Args:
        config: the recipe's eval section.
        tokenizer: with its template set (``chat.set_template``).
        grpo: inside a GRPO run, whose engine takes no longer prompts: the same limit and the same
            way with prompts over it.
        file: recipe, for error messages.

    Raises:
        DataError: from the sources, or a malformed or overlong prompt (named as ``part/row``).
        ModelError: the template is unusable.
        RecipeError: a malformed expression.
    """
    parts = load_parts(config, file=file, key="eval")
    return {part.name: _render(part, tokenizer, grpo, file=file, key="eval") for part in parts}


def _render(
    part: Part,
    tokenizer: PreTrainedTokenizerBase,
    grpo: GrpoConfig | None,
    *,
    file: str | Path | None,
    key: str,
) -> list[Prompt]:
    prompts = []
    for row in part.rows:
        try:
            mapped = part.config.columns
            messages = prompt_of(row.columns, system=part.config.system, mapped=mapped)
            for column, value in row.columns.items():  # the rewards and the run's files get them all
                check_text(value, column)
            tools = tools_of(row.columns)
            check_kept(
                tokenizer,
                messages,
                tools=tools,
                earlier_reasoning=True,
                keep=said(row.columns, ("prompt",), mapped).keep,
                tools_from=tools_column(row.columns),
            )
            ids = render_prompt(tokenizer, messages, tools=tools)
        except AlignError as error:
            raise at_row(error, row.id, file=file, key=f"{key}.parts.{part.name}") from error
        others = {name: value for name, value in row.columns.items() if name != "prompt"}
        from_text = isinstance(row.columns.get("prompt"), str)
        prompts.append(Prompt(row.id, messages, ids, others, part.name, from_text))
    return _within(prompts, grpo, part.name, file=file) if grpo else prompts


def _within(prompts: list[Prompt], grpo: GrpoConfig, part: str, *, file: str | Path | None) -> list[Prompt]:
    """The prompts within ``grpo.max_prompt_tokens``."""
    limit = grpo.max_prompt_tokens
    long = [prompt for prompt in prompts if len(prompt.token_ids) > limit]
    if not long:
        return prompts
    if grpo.overlong_prompts == "error" or len(long) == len(prompts):
        raise DataError(
            f"row {long[0].id}: the prompt has {len(long[0].token_ids)} tokens, more than {limit}; "
            f"so have {len(long)} of the {len(prompts)} prompts of part {part!r}",
            file=file,
            key="grpo.max_prompt_tokens",
            remedy="raise grpo.max_prompt_tokens"
            + (", or set grpo.overlong_prompts=drop" if grpo.overlong_prompts == "error" else ""),
        )
    logger.warning(
        "part %s: %d of %d prompts longer than %d tokens dropped", part, len(long), len(prompts), limit
    )
    return [prompt for prompt in prompts if len(prompt.token_ids) <= limit]
