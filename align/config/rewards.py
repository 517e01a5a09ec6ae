"""The reward terms of a run."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from align.config.base import Section


class TermConfig(Section):
    """One named reward term."""

    function: str
    """Name of a file in rewards/, ``name:function``, ``path/to/file.py``, ``path/to/file.py:function``
    or an entry point of an installed package."""
    weight: float = Field(1.0, allow_inf_nan=False)
    """Factor in the weighted sum; 0 only logs the term."""
    args: dict[str, object] = {}
    """Keyword arguments handed to the function after the sample."""
    where: str | None = None
    """Apply only to rows for which this expression over the row's columns is true."""
    clip: tuple[float, float] | None = None
    """Clamp the raw score to this range."""
    timeout: float | None = Field(None, gt=0)
    """Seconds one call may take; default: the function's own limit, else ``rewards.timeout``."""

    @model_validator(mode="after")
    def _ordered_clip(self) -> TermConfig:
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip is [low, high] with low < high, got {list(self.clip)}")
        return self


class RewardsConfig(Section):
    """Named terms, and the processes that compute them."""

    terms: dict[str, TermConfig] = Field(min_length=1)
    """Term name → function and weight; the name labels metrics and rollout columns."""
    workers: int = Field(1, ge=1)
    """Reward processes. A stuck or crashing function costs its process, not the run."""
    timeout: float = Field(10.0, gt=0)
    """Seconds one call may take."""
    error_budget: float = Field(0.05, ge=0, le=1)
    """The run stops when more than this share of the last ``error_window`` samples failed."""
    error_window: int = Field(512, ge=1)
    """Samples over which the share of failures is taken."""

    @model_validator(mode="after")
    def _plain_names(self) -> RewardsConfig:
        for name in self.terms:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"the term name {name!r} may hold only letters, digits, '_' and '-'")
        return self
