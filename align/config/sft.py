"""Supervised fine-tuning."""

from __future__ import annotations

from pydantic import Field

from align.config.base import Section


class SftConfig(Section):
    """One pass of supervised fine-tuning over a mixture (paper §4.1)."""

    epochs: float = Field(2.0, gt=0)
    """Passes over the mixture (the paper: 2)."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many optimiser steps whatever ``epochs`` says."""
    batch_size: int = Field(8, ge=1)
    """Sequences (packed rows, under packing) per device in one forward pass."""
    gradient_accumulation: int = Field(1, ge=1)
    """Forward passes per optimiser step."""
    max_length: int = Field(4096, ge=8)
    """Longest conversation in tokens."""
    overlong: str = Field("drop", pattern="^(drop|truncate)$")
    """What happens to a longer conversation; either way it is counted."""
    packing: bool = False
    """Fill each row with several conversations, attention kept apart."""
    balance_alpha: float = Field(0.0, ge=0)
    """α1 of the expert-level balance loss (paper eq. 23–25); 0 turns it off. MoE policies only."""
    eval_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the mixture held out for a validation loss."""
