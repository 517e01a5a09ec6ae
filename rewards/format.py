"""Answer format: 1 where the answer has the wanted form, else 0."""

from __future__ import annotations

import re

from align.reward import Sample, reward

_THOUGHT = r"(?s)\s*+(?:<think>)?(?:(?!</?think>).)+</think>"
"""One thought. Where the chat template opens ``<think>`` in the prompt, the answer only closes it."""

PATTERNS = {
    "boxed": r"(?s).*\\boxed\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}.*",
    "gsm8k": r"(?s)(?:(?!####).)*\S\s*\n#### [^\n]+\s*",
    "answer_line": r"(?s).*(?:^|\n)(?:Final )?Answer: [^\n]+\s*",
    "think_answer": rf"{_THOUGHT}\s*<answer>(?:(?!</?answer>|</?think>).)+</answer>\s*",
    "think": rf"{_THOUGHT}(?:(?!</?think>).)*(?!</?think>)\S(?:(?!</?think>).)*",
}
"""Named forms. ``boxed`` has a ``\\boxed{}`` (braces two deep); ``gsm8k`` ends in one line ``#### …``
after some reasoning; ``answer_line`` ends in a line ``Answer: …``; ``think_answer`` is one
``<think>`` block, then one ``<answer>`` block; ``think`` is one ``<think>`` block, then text. The opening
``<think>`` may be missing, as the prompt may hold it; the closing one may not."""


@reward
def format(sample: Sample, pattern: str) -> float:
    """1 where the whole answer matches ``pattern``: one of the named forms or a regular expression."""
    return float(re.fullmatch(PATTERNS.get(pattern, pattern), sample.completion) is not None)
