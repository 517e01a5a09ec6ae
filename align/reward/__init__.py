"""Reward functions: the contract they are written to, and how they are found, called and combined."""

from __future__ import annotations

from align.reward.contract import Sample, reward

__all__ = ["Sample", "reward"]
