"""The terms of a recipe, resolved; and the call on a few samples that proves them before a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from align.config.rewards import ConstraintConfig, RewardsConfig
from align.errors import RewardError
from align.reward.bank.calibration import SavedCalibration, read_calibration
from align.reward.bank.varied import moves, unmoved, varied
from align.reward.calls.child import ChildProcess, score_each
from align.reward.calls.parcel import pack
from align.reward.calls.worker import Assignment
from align.reward.contract import Sample
from align.reward.functions.registry import RewardFunction, resolve
from align.types import Outcome, Prompt

logger = logging.getLogger(__name__)

Predicate = Callable[[Mapping[str, Any]], Any]
"""A compiled ``where`` expression: the row's columns → true or false."""


@dataclass(frozen=True, slots=True)
class Term:
    """One named reward, ready to be called."""

    name: str
    function: RewardFunction | None
    """None for a term that a trained model computes."""
    model: str | None = None
    """The reward model, as the recipe names it; None for a function."""
    weight: float = 1.0
    calibration: Literal["none", "saved", "quantiles", "running"] = "none"
    saved: SavedCalibration | None = None
    """The model's own distribution, where the calibration reads it."""
    clip: tuple[float, float] | None = None
    """Range of the calibrated score."""
    constraint: ConstraintConfig | None = None
    timeout: float = 10.0
    """Seconds one call may take."""
    memory_mib: int = 2048
    """Memory one call may take."""
    max_steps: int = 1
    """Steps of the run; functions written for TRL read them."""
    applies: Predicate | None = None

    def covers(self, columns: Mapping[str, Any]) -> bool:
        """Whether the term applies to a row."""
        return self.applies is None or bool(self.applies(columns))


def load_terms(
    config: RewardsConfig,
    compile_expression: Callable[[str], Predicate],
    *,
    find_model: Callable[[str], str] = str,
    file: str | Path | None = None,
    max_steps: int = 1,
) -> list[Term]:
    """Resolve every term of a recipe.

    Args:
        config: the section ``rewards``.
        compile_expression: turns the text of ``where`` into a predicate.
        find_model: from a model as the recipe names it to its directory; read for its calibration.
        file: the recipe, for messages.
        max_steps: steps of the run, for functions that read TRL's ``trainer_state``.

    Raises:
        RewardError: a function cannot be found, imported or called with its arguments, or a model
            lacks the calibration that its term asks for.
        ModelError: from ``find_model``.
    """
    terms = []
    for name, term in config.terms.items():
        key = f"rewards.terms.{name}"
        function, saved = None, None
        if term.function is not None:
            function = resolve(term.function, term.args, file=file, key=f"{key}.function")
        if term.model is not None and term.calibration in {"saved", "quantiles"}:
            saved = read_calibration(find_model(term.model), key=f"{key}.calibration")
        own_limit = function.timeout if function else None
        terms.append(
            Term(
                name=name,
                function=function,
                model=term.model,
                weight=term.weight,
                calibration=term.calibration,
                saved=saved,
                clip=term.clip,
                constraint=term.constraint,
                timeout=term.timeout or own_limit or config.timeout,
                memory_mib=term.memory_mib or config.memory_mib,
                max_steps=max_steps,
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
            prompt_from_text=prompt.from_text,
        )
        for prompt in prompts
        for index, text in enumerate(("The answer is 1.", "I do not know."))
    ]


def assignments(terms: Sequence[Term]) -> dict[str, Assignment]:
    """What a process must know to call the functions of the terms, by term."""
    return {
        term.name: Assignment(
            term.function.reference,
            dict(term.function.args),
            term.timeout,
            term.memory_mib,
            term.max_steps,
            pack(term.function.reference),
        )
        for term in terms
        if term.function is not None
    }


def smoke(terms: Sequence[Term], samples: Sequence[Sample], *, file: str | Path | None = None) -> None:
    """Call every function once, so that a broken one fails before any engine starts.

    One that says the same of every answer is tried on answers of more kinds; a warning where it still does.

    All run in one process apart, under the limits of a reward process: a function that hangs, ends its
    process or eats memory is found out like one that raises.

    Args:
        terms: those of models are left alone.
        samples: a list function gets those of each prompt together.
        file: the recipe, for messages.

    Raises:
        RewardError: a term raised, took too long, ended the process, ran out of memory or returned
            something that is no score.
    """
    with ChildProcess(assignments(terms)) as child:
        for term in terms:
            scope = [sample for sample in samples if term.covers(sample.columns)]
            if term.function is None or not scope:
                continue
            said = []
            groups = [list(group) for _, group in groupby(scope, key=lambda sample: sample.prompt_id)]
            for group in groups:
                outcomes = _ask(child, term, group)
                check_smoke(term, group, outcomes, file=file)
                said.append(outcomes)
            if not any(map(moves, said)):
                _warn_if_constant(child, term, term.function, groups, file=file)


def _ask(child: ChildProcess, term: Term, group: Sequence[Sample]) -> list[Outcome]:
    function = term.function
    together = function is not None and (function.batched or function.awaits)
    return score_each(child, term.name, group, together=together, timeout=term.timeout)


def _warn_if_constant(
    child: ChildProcess,
    term: Term,
    function: RewardFunction,
    groups: Sequence[Sequence[Sample]],
    *,
    file: str | Path | None,
) -> None:
    """Try more kinds of answers to the same prompts; failures on these are none of the start-up call's."""
    for group in groups:
        tried = [*group, *varied(group[0])]
        outcomes = _ask(child, term, tried)
        if moves(outcomes):
            return
    if any(outcome.kind in {"ok", "abstain"} for outcome in outcomes):
        logger.warning(
            "%srewards.terms.%s: %s; try it with `align rewards test %s`",
            f"{file}: " if file else "",
            term.name,
            unmoved(function, tried, outcomes),
            function.reference,
        )


def check_smoke(
    term: Term,
    samples: Sequence[Sample],
    outcomes: Sequence[Outcome],
    *,
    file: str | Path | None = None,
    key: str | None = None,
) -> None:
    """Raise for the first failure among the outcomes of a smoke call.

    Args:
        term: what was called.
        samples: with what.
        outcomes: what came of it.
        file: the recipe, for messages.
        key: where it names the function; ``rewards.terms.<term>`` where left out.

    Raises:
        RewardError: naming recipe, key, function and row.
    """
    for sample, outcome in zip(samples, outcomes, strict=True):
        if outcome.kind not in {"error", "timeout"}:
            continue
        row = f" on row {sample.prompt_id}" if sample.prompt_id else ""
        if term.function is None:
            remedy = f"see that {term.model} reads conversations like these, or train it again"
        else:
            reference = term.function.reference
            longer = " or give it more time (timeout)" if outcome.kind == "timeout" else ""
            told = "\n  remedy: " in outcome.detail  # the error says itself how to mend it
            remedy = f"{'' if told else f'mend it{longer}, and '}try it with `align rewards test {reference}`"
        raise RewardError(
            f"term {term.name!r} failed its start-up call{row}: {outcome.detail}",
            file=file,
            key=key or f"rewards.terms.{term.name}",
            remedy=remedy,
        )
