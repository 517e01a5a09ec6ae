"""Training of a reward model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from align.config.base import Section


class RewardModelConfig(Section):
    """From the SFT model to a model that gives one number to a conversation (paper §4.2).

    The report names neither batch, epochs nor learning rate; these are chosen here.
    """

    loss: Literal["bradley_terry", "regression", "binary"] = "bradley_terry"
    """``bradley_terry`` learns from pairs (``chosen``, ``rejected``, optional ``margin``); the others from
    ``messages`` with a ``score``: squared error, or cross-entropy for scores that are 0 or 1."""
    center: float = Field(0.01, ge=0)
    """Weight of the squared sum of a pair's two scores, which keeps scores around 0; 0 turns it off.
    Pairs only."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the mixture."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many optimiser steps whatever ``epochs`` says."""
    batch_size: int = Field(32, ge=1)
    """Pairs (scored conversations) of one optimiser step, all processes together."""
    micro_batch_tokens: int = Field(4096, ge=1)
    """Padded tokens in one forward pass: memory against speed, never the result."""
    max_length: int = Field(2048, ge=8)
    """Longest conversation in tokens; a longer one loses its beginning, which is counted."""
    balance_alpha: float = Field(0.0, ge=0)
    """α1 of the expert-level balance loss (paper eq. 23–25); 0 turns it off. MoE policies only."""
    eval_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts that is held out. A hash of the conversation's first user turn decides, so a
    prompt is on the same side in every run, and all its answers are."""
    eval_every: int = Field(0, ge=0)
    """Steps between held-out measurements; 0: only at the end."""

    @model_validator(mode="after")
    def _center_of_pairs(self) -> RewardModelConfig:
        default = type(self).model_fields["center"].default  # what a resolved recipe says
        if self.loss != "bradley_terry" and self.center not in {0.0, default}:
            raise ValueError(f"center belongs to loss: bradley_terry, not to {self.loss}")
        return self
