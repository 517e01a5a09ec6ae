"""Reward functions: the contract they are written to, and how they are found, called and combined."""

from __future__ import annotations

from align.errors import RewardError
from align.reward.contract import Sample, reward

__all__ = ["RewardError", "Sample", "reward"]
