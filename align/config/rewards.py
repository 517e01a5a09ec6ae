"""The reward terms of a run and how they become one reward."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from align.config.base import Section
from align.config.places import readable


class ConstraintConfig(Section):
    """Hold the mean of a term at or above a value, by a Lagrange multiplier in place of its weight."""

    at_least: float
    """The batch mean to hold, in units of the term's score after calibration and clip."""
    lr: float = Field(0.1, gt=0)
    """Step size of the multiplier: after each step it grows by lr · (at_least − batch mean)."""
    initial: float = Field(0.0, ge=0)
    """Multiplier of the first step."""
    max: float = Field(10.0, gt=0)
    """The multiplier grows no further; a constraint that cannot be met must not drown the other terms."""

    @model_validator(mode="after")
    def _starts_below(self) -> ConstraintConfig:
        if self.initial > self.max:
            raise ValueError(f"initial ({self.initial:g}) must not be above max ({self.max:g})")
        return self


class TermConfig(Section):
    """One named reward term: a function or a trained reward model."""

    function: str | None = None
    """Name of a file in rewards/, ``name:function``, ``path/to/file.py``, ``path/to/file.py:function``
    or an entry point of an installed package."""
    model: str | None = None
    """A trained reward model: its directory, the run directory of ``align rm``, or a hub id. Scored in
    the score stage, outside the reward processes. Give either this or ``function``."""
    backend: Literal["auto", "torch", "vllm"] = "auto"
    """What computes a model term."""
    weight: float = Field(1.0, allow_inf_nan=False)
    """Factor of the term; 0 only logs it. A term with a ``constraint`` has its multiplier instead."""
    args: dict[str, object] = {}
    """Keyword arguments handed to the function after the sample."""
    where: str | None = None
    """Apply only to rows for which this expression over the row's columns is true."""
    calibration: Literal["none", "saved", "quantiles", "running"] = "none"
    """Put the raw score on a common scale: (x − mean)/std of the model's calibration.json (``saved``) or
    of all scores of this run so far (``running``), or the share of the model's held-out scores below x,
    0 to 1 (``quantiles``)."""
    clip: tuple[float, float] | None = None
    """Clamp the score to this range, after calibration."""
    constraint: ConstraintConfig | None = None
    """Hold the term's mean above a value (``combine: constrained``)."""
    timeout: float | None = Field(None, gt=0)
    """Seconds one call may take; default: the function's own limit, else ``rewards.timeout``."""
    memory_mib: int | None = Field(None, ge=64)
    """Memory one call may take; default ``rewards.memory_mib``."""

    _readable = field_validator("function", "model")(readable)

    @model_validator(mode="after")
    def _ordered_clip(self) -> TermConfig:
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip is [low, high] with low < high, got {list(self.clip)}")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> TermConfig:
        if (self.function is None) == (self.model is None):
            raise ValueError("give exactly one of function and model")
        if self.function is not None and self.calibration in {"saved", "quantiles"}:
            raise ValueError(f"calibration {self.calibration!r} is read from a model; a function has none")
        if self.function is not None and self.backend != "auto":
            raise ValueError("backend belongs to a model term")
        of_function = {"args", "timeout", "memory_mib"} & self.model_fields_set
        if self.model is not None and of_function:
            raise ValueError(f"{', '.join(sorted(of_function))} belongs to a function term")
        return self

    @model_validator(mode="after")
    def _fixed_scale(self) -> TermConfig:
        if self.constraint is None:
            return self
        if "weight" in self.model_fields_set:
            raise ValueError("a term with a constraint has no weight: the multiplier takes its place")
        if self.calibration == "running":
            raise ValueError("a running calibration keeps the mean at 0: no constraint can be put on it")
        return self


class RewardsConfig(Section):
    """Named terms, and the processes that compute them."""

    terms: dict[str, TermConfig] = Field(min_length=1)
    """Term name → function or model, and weight; the name labels metrics and rollout columns."""
    combine: Literal["weighted_sum", "group_norm", "constrained"] = "weighted_sum"
    """Terms to one reward: the weighted sum (paper §4.2); the weighted sum of terms normalised inside
    their group; or the weighted sum plus constrained terms under Lagrange multipliers."""
    workers: int = Field(1, ge=1)
    """Reward processes. A stuck, crashing or memory-eating function costs its process, not the run."""
    timeout: float = Field(10.0, gt=0)
    """Seconds one call may take; a reward model's so long for each of its samples, and a minute."""
    memory_mib: int = Field(2048, ge=64)
    """Memory one call may take on top of what its process holds after start-up (Linux)."""
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

    @model_validator(mode="after")
    def _constraints_are_used(self) -> RewardsConfig:
        bound = [name for name, term in self.terms.items() if term.constraint]
        if (self.combine == "constrained") != bool(bound):
            raise ValueError(
                f"term {bound[0]!r} has a constraint: it needs combine: constrained"
                if bound
                else "combine: constrained needs a term with a constraint"
            )
        return self
