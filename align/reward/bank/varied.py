"""Whether a term tells answers apart: made-up ones of many kinds, and what it says of them.

A function that never moves teaches nothing, and most often misreads its input: it takes the length of a
list of messages for that of a text, or compares a number with a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from align.reward.contract import Sample
from align.reward.functions.rows import word_ids
from align.types import Outcome

if TYPE_CHECKING:
    from align.reward.functions.registry import RewardFunction

_REFERENCES = ("answer", "ground_truth", "solution", "label", "labels", "target", "reference", "code")
_COLUMNS = 3
"""Columns of text that are tried as an answer themselves."""
_LONGEST = 4000
"""Longer texts are no answers."""


def varied(sample: Sample) -> list[Sample]:
    """Answers of other kinds to the sample's prompt: right ones in the usual forms, as far as the row tells
    what is right; a refusal, another language, a cut-off loop; and the first once more."""
    right = _reference(sample.columns)
    texts = [
        f"It comes to {right}.\n#### {right}",
        f"It comes to \\boxed{{{right}}}.",
        f"I work it out.\nAnswer: {right}",
        f"<think>\nI work it out.\n</think>\n<answer>{right}</answer>",
        *_texts(sample.columns),
        "I'm sorry, but I can't help with that.",
        "我不知道。",
    ]
    made = [
        replace(
            sample, completion=text, token_ids=word_ids(text), finish_reason="stop", sample_index=100 + place
        )
        for place, text in enumerate(dict.fromkeys(texts))
    ]
    length = min(sample.max_new_tokens, 4096) or 64
    loop = replace(
        sample,
        completion="and so on " * (length // 3 + 1),
        token_ids=[1 + place % 3 for place in range(length)],
        finish_reason="length",
        sample_index=100 + len(made),
    )
    return [*made, loop, replace(sample, sample_index=101 + len(made))]


def moves(outcomes: Sequence[Outcome]) -> bool:
    """Whether scores differ, or some answers have one and others do not. Failures say nothing."""
    return len({each.value for each in outcomes if each.kind in {"ok", "abstain"}}) > 1


def unmoved(function: RewardFunction, samples: Sequence[Sample], outcomes: Sequence[Outcome]) -> str:
    """What is to be told of a function that says the same of all these answers."""
    said = [
        (sample.completion, outcome.value)
        for sample, outcome in zip(samples, outcomes, strict=True)
        if outcome.kind in {"ok", "abstain"}
    ]
    value = said[0][1]
    what = "abstains on" if value is None else f"gives {value:g} to"
    form = ""
    if function.style.name == "trl":
        form = "texts" if samples[0].prompt_from_text else "messages"
        form = f"; it gets completions as {form}, as TRL passes them for such prompts"
    return (
        f"{what} each of {len(dict(said))} different answers{form}. That is right where none of them can "
        "pass, as with unit tests; else it misreads its input"
    )


def _reference(columns: Mapping[str, Any]) -> str:
    row = columns.get("reward_model")
    inside = row if isinstance(row, Mapping) else {}
    for source in (columns, inside):
        for name in _REFERENCES:
            value = source.get(name)
            if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
                return str(value)[:_LONGEST]
    return "42"


def _texts(columns: Mapping[str, Any]) -> list[str]:
    """Columns of text as they are: one of them may be the very answer. Code is fenced."""
    texts = [value for value in columns.values() if isinstance(value, str) and 0 < len(value) <= _LONGEST]
    return [f"```python\n{text}\n```" if "\n" in text else text for text in texts[:_COLUMNS]]
