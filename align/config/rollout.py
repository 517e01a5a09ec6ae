"""The rollout engine (vLLM) and the way weights reach it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from align.config.base import Section
from align.config.policy import Dtype


class RolloutConfig(Section):
    """How completions are sampled."""

    engines: int = Field(1, ge=1)
    """Engines that sample side by side. What they sample does not depend on their number."""
    tensor_parallel: int = Field(1, ge=1)
    """Devices that share the weights of one engine."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest completion."""
    partial_tokens: int | None = Field(None, ge=1)
    """Partial rollouts: new tokens that a completion gets in one step at most. Its group then waits, and goes
    on in the next step under the weights of then. Default: every completion ends in its step."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; training uses the same, so that ratios compare like with like."""
    keep_special_tokens: bool = False
    """Rewards see the special tokens of a completion, all but those that begin, end and pad a text: for
    policies whose ``<think>`` is one."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling; below 1 the sampled log-probabilities are renormalised and biased."""
    dtype: Dtype | None = None
    """Type of the engine's weights; default: the policy's."""
    max_num_seqs: int = Field(64, ge=1)
    """Sequences decoded at once."""
    kv_cache_gib: float = Field(2.0, gt=0)
    """KV-cache space on a CPU machine, GiB."""
    gpu_memory_utilization: float = Field(0.5, gt=0, lt=1)
    """Share of a GPU that the engine may use beside the trainer."""
    compile: bool | None = None
    """Compile the engine's model: starts 15 s to a minute later and decodes faster; default: on a GPU."""

    def compiled(self, device: str) -> bool:
        """``compile``, or what serves ``device`` (``cpu`` or ``cuda``)."""
        return device != "cpu" if self.compile is None else self.compile

    @model_validator(mode="after")
    def _something_to_cut(self) -> RolloutConfig:
        if self.partial_tokens is not None and self.partial_tokens >= self.max_new_tokens:
            raise ValueError(
                f"partial_tokens ({self.partial_tokens}) cuts nothing, since no completion has more than "
                f"max_new_tokens ({self.max_new_tokens}): lower it or leave it out"
            )
        return self


class SyncConfig(Section):
    """How weights are pushed, and the verification after each push."""

    bucket_mib: int = Field(512, ge=1)
    """With several ranks, MiB that are gathered and pushed at a time: no rank has to hold all weights."""
    probe_tokens: int = Field(64, ge=2)
    """Length of the probe prompt that trainer and engine both score."""
    tolerance: float | None = Field(None, gt=0)
    """Largest mean |Δ log-probability| of the probe; default 0.3 in bf16, 1e-3 in fp32."""
    every: int = Field(1, ge=1)
    """Probe after every so many pushes; checksums are compared after each."""


Backend = Literal["auto", "cpu", "cuda"]
