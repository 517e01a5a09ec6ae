"""Instruction following: how many of a prompt's checkable instructions an answer follows.

The columns are those of IFEval (arXiv 2311.07911): ``instruction_id_list`` names the instructions of the
prompt, ``kwargs`` holds the arguments of each. Rows of Tulu's RLVR data have ``ground_truth`` in their place.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from align.reward import RewardError, Sample, reward

from ._instruction_checks import CHECKS
from ._own_kinds import kinds_in
from ._tulu import TULU, Asked, asked_in


@reward
def instructions(
    sample: Sample,
    form: Literal["strict", "loose"] = "strict",
    level: Literal["instruction", "prompt"] = "instruction",
    kinds: str | None = None,
) -> float | None:
    """Share of the prompt's instructions that the answer follows; abstains where it has none.

    Args:
        form: ``loose`` also accepts the answer without its first line, last line or asterisks.
        level: ``instruction`` is the share; ``prompt`` is 1 where all are followed, else 0.
        kinds: a Python file whose mapping ``INSTRUCTIONS`` adds kinds, or replaces some.
    """
    if form not in {"strict", "loose"} or level not in {"instruction", "prompt"}:
        raise ValueError(f"form is strict or loose, level is instruction or prompt; got {form!r}, {level!r}")
    own = kinds_in(kinds) if kinds else {}
    asked, arguments = _asked(sample)
    if not asked:
        return None
    verdicts = followed(sample.completion, asked, arguments, loose=form == "loose", own=own)
    return float(all(verdicts)) if level == "prompt" else sum(verdicts) / len(verdicts)


def followed(
    text: str,
    kinds: Sequence[str],
    arguments: Sequence[Mapping[str, Any] | None],
    *,
    loose: bool = False,
    own: Mapping[str, Callable[..., bool]] | None = None,
) -> list[bool]:
    """Which instructions a text follows, one verdict for each of ``kinds``.

    Args:
        own: checks of further kinds; they come before those that are shipped.

    Raises:
        ValueError: an unknown kind, or as many arguments as kinds are missing.
        RewardError: arguments that do not fit their kind, an unknown language.
    """
    if len(kinds) != len(arguments):
        raise ValueError(f"{len(kinds)} instructions, but arguments for {len(arguments)}")
    texts = [text, *_relaxed(text)] if loose else [text]
    known = {**CHECKS, **TULU, **(own or {})}
    checks = [_check(kind, given or {}, known) for kind, given in zip(kinds, arguments, strict=True)]
    return [any(check(candidate) for candidate in texts) for check in checks]


def _asked(sample: Sample) -> Asked:
    nested = sample.get("reward_model")  # where verl's data have it
    place = nested if "ground_truth" not in sample and isinstance(nested, Mapping) else sample
    if "instruction_id_list" not in sample and "ground_truth" in place:
        truth = place["ground_truth"]
        return ([], []) if truth is None else asked_in(truth)
    kinds = sample["instruction_id_list"]
    if not kinds:
        return [], []
    arguments = sample["kwargs"]
    return kinds, json.loads(arguments) if isinstance(arguments, str) else arguments


def _check(
    kind: str, arguments: Mapping[str, Any], known: Mapping[str, Callable[..., bool]]
) -> Callable[[str], bool]:
    name = (
        kind if kind in known else kind.removeprefix("en:")
    )  # the multilingual edition marks its English kinds
    if name not in known:
        raise ValueError(
            f"unknown instruction kind {kind!r}; known: {', '.join(sorted(known))}. "
            "The argument `kinds` names a file with more"
        )
    check = known[name]
    # Rows of a table with one column for every argument hold null in the others.
    given = {key: value for key, value in arguments.items() if value is not None}
    try:
        inspect.signature(check).bind("", **given)
    except TypeError as error:
        raise RewardError(
            f"the arguments of {kind!r} do not fit: {error}",
            key=kind,
            remedy="correct the row: see docs/rules.md for what each kind takes",
        ) from None

    def follows(text: str) -> bool:
        return bool(check(text, **given)) and bool(text.strip())

    return follows


def _relaxed(text: str) -> Iterator[str]:
    """The text without its first line, its last, both; then all of them without asterisks."""
    lines = text.split("\n")
    shorter = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    yield from shorter
    yield from (part.replace("*", "") for part in (text, *shorter))
