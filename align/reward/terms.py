"""The terms of a recipe, resolved; and the call on a few samples that proves them before a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config.rewards import RewardsConfig
from align.errors import RewardError
from align.reward.contract import Sample
from align.reward.registry import RewardFunction, resolve
from align.reward.score import call
from align.types import Outcome, Prompt

Predicate = Callable[[Mapping[str, Any]], Any]
"""A compiled ``where`` expression: the row's columns → true or false."""


@dataclass(frozen=True, slots=True)
class Term:
    """One named reward, ready to be called."""

    name: str
    function: RewardFunction
    weight: float = 1.0
    clip: tuple[float, float] | None = None
    timeout: float = 10.0
    """Seconds one call may take."""
    applies: Predicate | None = None

    def covers(self, columns: Mapping[str, Any]) -> bool:
        """Whether the term applies to a row."""
        return self.applies is None or bool(self.applies(columns))


def load_terms(
    config: RewardsConfig, compile_expression: Callable[[str], Predicate], *, file: str | Path | None = None
) -> list[Term]:
    """Resolve every term of a recipe.

    Args:
        config: the section ``rewards``.
        compile_expression: turns the text of ``where`` into a predicate.
        file: the recipe, for messages.

    Raises:
        RewardError: a function cannot be found, imported or called with its arguments.
    """
    terms = []
    for name, term in config.terms.items():
        function = resolve(term.function, term.args, file=file, key=f"rewards.terms.{name}.function")
        terms.append(
            Term(
                name=name,
                function=function,
                weight=term.weight,
                clip=term.clip,
                timeout=term.timeout or function.timeout or config.timeout,
                applies=compile_expression(term.where) if term.where else None,
            )
        )
    return terms


def probes(prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[Sample]:
    """Two made-up answers to each prompt, for the smoke call. Pass a prompt of every mixture part."""
    return [
        Sample(
            prompt=prompt.messages,
            completion=text,
            token_ids=[1, 2, 3, 4],
            max_new_tokens=max_new_tokens,
            columns=prompt.columns,
            part=prompt.part,
            prompt_id=prompt.id,
            sample_index=index,
        )
        for prompt in prompts
        for index, text in enumerate(("The answer is 1.", "I do not know."))
    ]


def smoke(terms: Sequence[Term], samples: Sequence[Sample]) -> None:
    """Call every term once, in this process, so that a broken one fails before any engine starts.

    Raises:
        RewardError: a term raised, took too long or returned something that is no score.
    """
    for term in terms:
        scope = [sample for sample in samples if term.covers(sample.columns)]
        outcomes = call(term.function, scope, timeout=term.timeout)
        check_smoke(term, scope, outcomes)


def check_smoke(term: Term, samples: Sequence[Sample], outcomes: Sequence[Outcome]) -> None:
    """Raise for the first failure among the outcomes of a smoke call.

    Raises:
        RewardError: naming file, function and row.
    """
    for sample, outcome in zip(samples, outcomes, strict=True):
        if outcome.kind in {"error", "timeout"}:
            file, _, member = term.function.reference.rpartition(":")
            row = f" on row {sample.prompt_id}" if sample.prompt_id else ""
            raise RewardError(
                f"term {term.name!r} failed its start-up call{row}: {outcome.detail}",
                file=file,
                key=member,
                remedy="mend it, and try it with `align rewards test`",
            )
