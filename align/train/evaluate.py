"""Held-out measurements: answers, their scores, and how sure the mean is.

A metric is a reward function, and called like one: in a process apart, within a time and a memory limit.
A call that fails is left out of the mean and counted, never a zero; a part on which every call failed
stops the evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from align.config.data import EvalConfig
from align.errors import DataError, RewardError
from align.reward.bank.terms import Term, assignments, check_smoke, probes
from align.reward.calls.child import ChildProcess, score_each
from align.reward.contract import Sample
from align.reward.functions.registry import RewardFunction, resolve
from align.types import Completion, Outcome, Prompt

Answer = Callable[[Sequence[Prompt], int, float], list[Completion]]
"""(prompts, max_new_tokens, temperature) → one completion per prompt, in order."""

METRIC_SECONDS = 10.0
"""Seconds a row, for a metric that names no timeout of its own."""
Z95 = 1.959964
"""Half-width of a 95% interval in standard errors."""


def load_metrics(config: EvalConfig, *, file: str | Path | None = None) -> dict[str, RewardFunction]:
    """The metric function of every part.

    Raises:
        RewardError: one cannot be found, imported or called with its arguments.
    """
    return {
        name: resolve(part.metric, part.args, file=file, key=f"eval.parts.{name}.metric")
        for name, part in config.parts.items()
    }


def check_metrics(
    config: EvalConfig, prompts: Mapping[str, Sequence[Prompt]], *, file: str | Path | None = None
) -> None:
    """Call every metric on made-up answers to a prompt of its part, before any engine starts.

    Raises:
        RewardError: a metric cannot be used, raised, took too long, ended its process, ran out of memory
            or returned something that is no score.
    """
    terms = _terms(load_metrics(config, file=file))
    with ChildProcess(assignments(terms)) as child:
        for term in terms:
            samples = probes(prompts[term.name][:1], max_new_tokens=config.max_new_tokens)
            check_smoke(
                term,
                samples,
                _score(child, term, samples),
                file=file,
                key=f"eval.parts.{term.name}.metric",
            )


def evaluate(
    config: EvalConfig,
    prompts: Mapping[str, Sequence[Prompt]],
    answer: Answer,
    *,
    file: str | Path | None = None,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Answer every held-out prompt once and score the answers.

    Args:
        config: the parts, their metrics, and how answers are sampled.
        prompts: part name → its prompts.
        answer: the engine; asked once, for all parts together.
        file: the recipe, for messages.

    Returns:
        Metrics: ``eval/<part>`` is the mean score, ``…/stderr`` its standard error, ``…/scored``,
        ``…/abstained`` and ``…/failed`` count rows, ``…/truncated`` is the share of answers cut off
        at ``max_new_tokens``. And one row per prompt: part, prompt, answer, score, outcome.

    Raises:
        DataError: a part has no prompts.
        RewardError: a metric cannot be used, or gave no score for any row of its part.
    """
    terms = _terms(load_metrics(config, file=file))
    for name in config.parts:
        if not prompts.get(name):
            raise DataError(
                "no rows", file=file, key=f"eval.parts.{name}", remedy="check its path and `where`"
            )
    asked = [prompt for name in config.parts for prompt in prompts[name]]
    answers = answer(asked, config.max_new_tokens, config.temperature)
    values: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    with ChildProcess(assignments(terms)) as child:
        for term in terms:
            name = term.name
            own, answers = answers[: len(prompts[name])], answers[len(prompts[name]) :]
            pairs = list(zip(prompts[name], own, strict=True))
            samples = [Sample.of(*pair, max_new_tokens=config.max_new_tokens) for pair in pairs]
            outcomes = _score(child, term, samples)
            values |= _summary(name, own, outcomes, file)
            rows += [_row(name, *pair, outcome) for pair, outcome in zip(pairs, outcomes, strict=True)]
    return values, rows


def _terms(metrics: Mapping[str, RewardFunction]) -> list[Term]:
    """A metric runs under the limits of a reward function."""
    return [Term(name, metric, timeout=metric.timeout or METRIC_SECONDS) for name, metric in metrics.items()]


def _score(child: ChildProcess, term: Term, samples: Sequence[Sample]) -> list[Outcome]:
    metric = term.function
    assert metric is not None
    together = metric.batched or metric.awaits
    return score_each(child, term.name, samples, together=together, timeout=term.timeout)


def _summary(
    part: str, answers: Sequence[Completion], outcomes: Sequence[Outcome], file: str | Path | None
) -> dict[str, float]:
    scores = [outcome.value for outcome in outcomes if outcome.value is not None]
    failures = [outcome for outcome in outcomes if outcome.kind in {"error", "timeout"}]
    if not scores:
        reason = failures[0].detail.strip().splitlines()[-1] if failures else "it abstained"
        raise RewardError(
            f"the metric gave no score for any of {len(outcomes)} rows: {reason}",
            file=file,
            key=f"eval.parts.{part}.metric",
            remedy="try it with `align rewards test`, and check the columns that it reads",
        )
    return {
        f"eval/{part}": fmean(scores),
        f"eval/{part}/stderr": standard_error(scores),
        f"eval/{part}/scored": float(len(scores)),
        f"eval/{part}/abstained": float(sum(outcome.kind == "abstain" for outcome in outcomes)),
        f"eval/{part}/failed": float(len(failures)),
        f"eval/{part}/truncated": fmean(one.finish_reason == "length" for one in answers),
    }


def _row(part: str, prompt: Prompt, answer: Completion, outcome: Outcome) -> dict[str, Any]:
    return {
        "part": part,
        "prompt_id": prompt.id,
        "messages": [dict(message) for message in prompt.messages],
        "columns": dict(prompt.columns),
        "answer": answer.text,
        "tokens": len(answer.token_ids),
        "finish_reason": answer.finish_reason,
        "outcome": outcome.kind,
        "score": outcome.value,
        "detail": outcome.detail,
    }


def standard_error(scores: Sequence[float]) -> float:
    """Of the mean, from the sample standard deviation; 0 for a single score."""
    return stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """A 95% interval of the mean: Wilson's for scores that are all 0 or 1, else mean ± 1.96 stderr.

    Wilson's stays honest where the other has no width: 0 of 20 right is [0, 0.16], not [0, 0].
    """
    mean, count = fmean(scores), len(scores)
    if any(score not in (0, 1) for score in scores):
        half = Z95 * standard_error(scores)
        return mean - half, mean + half
    shrink = 1 + Z95**2 / count
    middle = (mean + Z95**2 / (2 * count)) / shrink
    half = Z95 / shrink * math.sqrt(mean * (1 - mean) / count + Z95**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two evaluations of one part."""

    part: str
    before: float
    after: float
    change: float
    """Mean of the differences over the prompts that both scored."""
    half_width: float
    """Half of its 95% interval, from the paired differences."""
    prompts: int
    """How many prompts both scored."""


def compare(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Pair two evaluations by prompt id. Parts without a common prompt are left out.

    Args:
        before: rows of the earlier evaluation, as :func:`evaluate` returns them.
        after: rows of the later one.
    """
    earlier = {(row["part"], row["prompt_id"]): row["score"] for row in before if row["score"] is not None}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in after:
        key = (row["part"], row["prompt_id"])
        if row["score"] is not None and key in earlier:
            pairs.setdefault(row["part"], []).append((earlier[key], row["score"]))
    return [
        Difference(
            part=part,
            before=fmean(old for old, _ in both),
            after=fmean(new for _, new in both),
            change=fmean(new - old for old, new in both),
            half_width=Z95 * standard_error([new - old for old, new in both]),
            prompts=len(both),
        )
        for part, both in pairs.items()
    ]
