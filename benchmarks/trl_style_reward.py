"""A reward as TRL calls one. Both sides of ``grpo_vs_trl.py`` run it unchanged."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def last_number(completions, answer, **columns) -> list[float]:
    """1 where the last number of a completion is the answer, else 0.2 for any number, else 0."""
    rewards = []
    for (message,), truth in zip(completions, answer, strict=True):
        numbers = _NUMBER.findall(message["content"])
        right = bool(numbers) and numbers[-1].replace(",", "") == truth.replace(",", "")
        rewards.append(1.0 if right else 0.2 * bool(numbers))
    return rewards
