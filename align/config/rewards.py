"""The reward terms of a run."""

from __future__ import annotations

from pydantic import Field

from align.config.base import Section


class TermConfig(Section):
    """One named reward term."""

    function: str
    """Name of a file in rewards/, ``path/to/file.py`` or ``path/to/file.py:function``."""
    weight: float = 1.0
    """Factor in the weighted sum."""
    args: dict[str, object] = {}
    """Keyword arguments handed to the function after the sample."""
    where: str | None = None
    """Apply only to rows for which this expression over the row's columns is true."""
    clip: tuple[float, float] | None = None
    """Clamp the raw score to this range."""
    timeout: float | None = Field(None, gt=0)
    """Seconds one call may take; default: ``rewards.timeout``."""


class RewardsConfig(Section):
    """Named terms, and the processes that compute them."""

    terms: dict[str, TermConfig] = Field(min_length=1)
    """Term name → function and weight; the name labels metrics and rollout columns."""
    workers: int = Field(1, ge=1)
    """Reward processes. A stuck or crashing function costs its process, not the run."""
    timeout: float = Field(10.0, gt=0)
    """Seconds one call may take."""
    error_budget: float = Field(0.05, ge=0, le=1)
    """Share of failed calls over ``error_window`` samples beyond which the run stops."""
    error_window: int = Field(512, ge=1)
    """Samples over which the share of failures is taken."""
