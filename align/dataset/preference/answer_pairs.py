"""Preference pairs from scored answers: to each prompt, the best one against the worst.

So new pairs come from the policy as it is now: a run's rollout files hold its completions and their
rewards (DeepSeekMath Algorithm 1 trains the reward model on such pairs and a replayed share of old ones).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.dataset.messages.turns import plain, turns_of
from align.dataset.preference.rows import Noise, _number
from align.dataset.rows.parts import Row, at_row
from align.errors import DataError

Prompt = tuple[tuple[str, ...], ...]
"""Each turn as ``turns.plain`` gives it."""


def best_against_worst(
    rows: Sequence[Row], by: str, noise: Counter[Noise], *, file: str | Path | None = None, key: str = "data"
) -> list[Row]:
    """One row with ``prompt``, ``chosen`` and ``rejected`` for each prompt whose answers differ in score.

    Of several best (or worst) answers the first counts; a pair is named like its best answer.

    Args:
        rows: with ``prompt`` (text or messages), ``completion`` and the column ``by``. Equal prompts
            belong together, wherever their rows stand.
        by: the column of scores. None says that there is no score, as where a reward failed.
        noise: counts ``unscored`` answers and ``tied`` prompts.
        file: recipe, for error messages.
        key: dotted key of the part, for error messages.

    Raises:
        DataError: a column is missing, or a score is no number.
    """
    answers: dict[Prompt, list[tuple[float, Row]]] = {}
    for row in rows:
        try:
            prompt, score = _prompt_and_score(row, by)
        except DataError as error:
            raise at_row(error, row.id, file=file, key=key) from error
        if score is None:
            noise["unscored"] += 1
        else:
            answers.setdefault(prompt, []).append((score, row))
    pairs: list[Row] = []
    for scored in answers.values():
        # max and min take the first of equals, so length and place decide nothing.
        best, chosen = max(scored, key=lambda each: each[0])
        worst, rejected = min(scored, key=lambda each: each[0])
        if best == worst:
            noise["tied"] += 1
            continue
        columns = {"prompt": chosen.columns["prompt"], "chosen": _text(chosen), "rejected": _text(rejected)}
        pairs.append(Row(chosen.id, columns))
    return pairs


def _text(row: Row) -> Any:
    """The answer as reward models score it in GRPO: templates write the space before it themselves."""
    answer = row.columns["completion"]
    return answer.lstrip() if isinstance(answer, str) else answer


def _prompt_and_score(row: Row, by: str) -> tuple[Prompt, float | None]:
    for column in ("prompt", "completion", by):
        if column not in row.columns:
            raise DataError(
                f"no {column} in the columns {', '.join(map(str, row.columns))}",
                remedy="map columns to prompt and completion, and name a score by pairs_by",
            )
    turns = turns_of(row.columns["prompt"], "prompt", "user")
    score = row.columns[by]
    return tuple(map(plain, turns)), None if score is None else _number(score, by)
