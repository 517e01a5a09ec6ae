"""All of a GRPO run that can be checked without starting an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from align.chat.decode import decoded
from align.config.recipe import GrpoRecipe
from align.dataset.chat import set_template
from align.dataset.prompts import load_eval_prompts, load_prompts
from align.dataset.rows.expression import compile_expression
from align.model.experts.router_replay import check_replay
from align.model.experts.sharing import check_expert_parallel
from align.model.files.check import check_model
from align.model.files.hub import reach_hub
from align.model.files.load import load_config, load_tokenizer, resolve_model
from align.model.score.scorer import ScorerFiles, open_scorers, term_key
from align.reward.bank.calibration import trained_length
from align.reward.bank.terms import load_terms, probes, smoke
from align.train.context import check_positions, longest_context
from align.train.evaluate import check_metrics
from align.train.grpo.partial import check_partial
from align.types import Prompt


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that can be checked without starting an engine."""

    prompts: list[Prompt]
    eval_prompts: dict[str, list[Prompt]]
    model: str
    chat_template: str
    context: int
    """Longest prompt and answer together, tokens: what the engine must hold."""
    probe: list[int]
    scorers: dict[str, ScorerFiles]
    decode: Callable[[Sequence[int]], str]


def prepare(recipe: GrpoRecipe, *, file: Path) -> Prepared:
    """Resolve model, tokenizer, data and rewards.

    Raises:
        AlignError: whichever of them is wrong, naming file, key and remedy.
    """
    check_partial(recipe, file=file)
    reach_hub(recipe.policy.path, file=file)
    config = load_config(recipe.policy)
    check_replay(config, recipe.grpo.replay, file=file)
    check_expert_parallel(config, recipe.cluster.expert_parallel, file=file)
    check_model(recipe.policy, sampled=True)
    tokenizer = load_tokenizer(recipe.policy)
    set_template(tokenizer, recipe.policy.chat_template)
    scorers = open_scorers(recipe.rewards, file=file)
    for name, files in scorers.items():
        trained_length(files.source, key=term_key(name))
    terms = load_terms(
        recipe.rewards, predicates(file), find_model=resolve_model, file=file, max_steps=recipe.grpo.steps
    )
    prompts = load_prompts(recipe.data, tokenizer, recipe.grpo, file=file)
    trial = probes(one_of_each_part(prompts), max_new_tokens=recipe.rollout.max_new_tokens)
    smoke(terms, trial, file=file)
    eval_prompts = load_eval_prompts(recipe.eval, tokenizer, recipe.grpo, file=file)
    check_metrics(recipe.eval, eval_prompts, file=file)
    context = longest_context(recipe, prompts, eval_prompts)
    check_positions(context, config, file=file)
    return Prepared(
        prompts=prompts,
        eval_prompts=eval_prompts,
        model=resolve_model(recipe.policy.path),
        chat_template=str(tokenizer.chat_template),
        context=context.tokens,
        probe=_probe(prompts, min(recipe.sync.probe_tokens, context.tokens - 1)),
        scorers=scorers,
        decode=partial(decoded, tokenizer, keep_special=recipe.rollout.keep_special_tokens),
    )


def _probe(prompts: Sequence[Prompt], length: int) -> list[int]:
    """The first prompts' tokens, one after another, up to the wanted length."""
    tokens: list[int] = []
    for prompt in prompts:
        tokens += prompt.token_ids
        if len(tokens) >= length:
            break
    return tokens[:length]


def predicates(file: Path) -> Any:
    """What makes a reward term's ``where`` a function of a sample; ``file`` is the recipe's, for errors."""
    return lambda text: compile_expression(text, file=file, key="rewards.terms")


def one_of_each_part(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The last prompt of each part of the data."""
    return list({prompt.part: prompt for prompt in prompts}.values())
