"""Punishment of answers that repeat themselves."""

from __future__ import annotations

import re

from align.reward import Sample, reward

# A word, or one character of a script that writes no spaces (Han, kana).
_UNITS = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)


@reward
def repetition(sample: Sample, n: int = 4) -> float:
    """Minus the share of n-grams of words that occurred before: 0 without any, towards -1 in a loop."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    words = _UNITS.findall(sample.completion.lower())
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) - 1 if grams else 0.0
