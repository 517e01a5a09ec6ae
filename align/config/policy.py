"""Which model is trained, and how its weights are held."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from align.config.base import Section
from align.config.places import readable

Dtype = Literal["bfloat16", "float32"]


class LoraConfig(Section):
    """Low-rank adapters instead of full fine-tuning."""

    rank: int = Field(16, ge=1)
    """Rank of the update matrices."""
    alpha: float = Field(32, gt=0)
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter input. ``align grpo`` refuses it: sampling and training must agree."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get an adapter. Routers and fused experts never do."""


class PolicyConfig(Section):
    """The policy: a model directory or hub id."""

    path: str
    """Model directory, run directory (its final model) or hub id."""
    init: Literal["pretrained", "random"] = "pretrained"
    """``random`` builds fresh weights from the directory's config.json and the run seed."""
    tokenizer: str | None = None
    """Directory or hub id of the tokenizer, when it is not beside the model."""
    chat_template: str | None = None
    """A shipped template (``chatml``, ``deepseek_v2``, ``deepseek_v3``, ``deepseek_r1``), one of TRL's for
    training (``llama3``, ``qwen3``) or a .jinja file; default: the tokenizer's own."""
    dtype: Dtype = "bfloat16"
    """Type of the compute weights; the optimiser always keeps fp32 master weights."""
    lora: LoraConfig | None = None
    """Train adapters only; omit for full fine-tuning."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more compute."""
    compile: bool | None = None
    """Compile the decoder layers in the trainer (torch.compile, attention left out). Default: dense policies
    of 100M weights or more, on a CPU with a C++ compiler: a third faster, at most a minute at the start."""
    experts: Literal["grouped_mm", "eager"] = "grouped_mm"
    """Kernel of the routed experts in the trainer."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read that code."""

    _readable = field_validator("path", "tokenizer", "chat_template")(readable)
