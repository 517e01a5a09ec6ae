"""Answer format: 1 where the answer has the wanted form, else 0."""

from __future__ import annotations

import re

from align.reward import Sample, reward

PATTERNS = {
    "boxed": r"(?s).*\\boxed\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}.*",
    "gsm8k": r"(?s)(?:(?!####).)*\S\s*\n#### [^\n]+\s*",
    "answer_line": r"(?s).*(?:^|\n)(?:Final )?Answer: [^\n]+\s*",
    "think_answer": r"(?s)\s*<think>(?:(?!</?think>).)+</think>\s*<answer>(?:(?!</?answer>).)+</answer>\s*",
    "think": r"(?s)\s*<think>(?:(?!</?think>).)+</think>(?:(?!</?think>).)*\S(?:(?!</?think>).)*",
}
"""Named forms. ``boxed`` has a ``\\boxed{}`` (braces two deep); ``gsm8k`` ends in one line ``#### …``
after some reasoning; ``answer_line`` ends in a line ``Answer: …``; ``think_answer`` is one
``<think>`` block, then one ``<answer>`` block; ``think`` is one ``<think>`` block, then text."""


@reward
def format(sample: Sample, pattern: str) -> float:
    """1 where the whole answer matches ``pattern``: one of the named forms or a regular expression."""
    return float(re.fullmatch(PATTERNS.get(pattern, pattern), sample.completion) is not None)
