"""Instruction following: how many of a prompt's checkable instructions an answer follows.

The columns are those of IFEval (arXiv 2311.07911): ``instruction_id_list`` names the instructions of the
prompt, ``kwargs`` holds the arguments of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from align.reward import Sample, reward

from ._instruction_checks import CHECKS


@reward
def instructions(
    sample: Sample,
    form: Literal["strict", "loose"] = "strict",
    level: Literal["instruction", "prompt"] = "instruction",
) -> float | None:
    """Share of the prompt's instructions that the answer follows; abstains where it has none.

    Args:
        form: ``loose`` also accepts the answer without its first line, last line or asterisks.
        level: ``instruction`` is the share; ``prompt`` is 1 where all are followed, else 0.
    """
    kinds = sample["instruction_id_list"]
    if not kinds:
        return None
    if form not in {"strict", "loose"} or level not in {"instruction", "prompt"}:
        raise ValueError(f"form is strict or loose, level is instruction or prompt; got {form!r}, {level!r}")
    verdicts = followed(sample.completion, kinds, sample["kwargs"], loose=form == "loose")
    return float(all(verdicts)) if level == "prompt" else sum(verdicts) / len(verdicts)


def followed(
    text: str, kinds: Sequence[str], arguments: Sequence[Mapping[str, Any] | None], *, loose: bool = False
) -> list[bool]:
    """Which instructions a text follows, one verdict for each of ``kinds``.

    Raises:
        ValueError: an unknown kind, or as many arguments as kinds are missing.
    """
    if len(kinds) != len(arguments):
        raise ValueError(f"{len(kinds)} instructions, but arguments for {len(arguments)}")
    texts = [text, *_relaxed(text)] if loose else [text]
    return [
        any(_follows(kind, candidate, given or {}) for candidate in texts)
        for kind, given in zip(kinds, arguments, strict=True)
    ]


def _follows(kind: str, text: str, arguments: Mapping[str, Any]) -> bool:
    name = kind.removeprefix("en:")  # the multilingual edition marks its English kinds
    if name not in CHECKS:
        raise ValueError(f"unknown instruction kind {kind!r}; known: {', '.join(sorted(CHECKS))}")
    # Rows of a table with one column for every argument hold null in the others.
    given = {key: value for key, value in arguments.items() if value is not None}
    return bool(text.strip()) and CHECKS[name](text, **given)


def _relaxed(text: str) -> Iterator[str]:
    """The text without its first line, its last, both; then all of them without asterisks."""
    lines = text.split("\n")
    shorter = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    yield from shorter
    yield from (part.replace("*", "") for part in (text, *shorter))
