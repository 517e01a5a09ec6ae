"""The run directory, its checkpoints, and the machines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from align.config.base import Section
from align.config.rollout import Backend


class CheckpointConfig(Section):
    """When the run saves itself."""

    every: int = Field(50, ge=1)
    """Optimiser steps between checkpoints; the last step always has one."""
    keep: int = Field(2, ge=1)
    """Older checkpoints are removed."""


class ReportConfig(Section):
    """What is written while the run is under way."""

    console: bool = True
    """Live panel on a terminal; plain lines elsewhere."""
    show_sample: bool = True
    """Show the latest completion in the live panel. Turn off where prompts should stay off the screen."""
    tensorboard: bool = True
    """Event files in the run directory."""
    rollouts_every: int = Field(1, ge=1)
    """Steps between parquet files of all completions with all reward terms."""


class ClusterConfig(Section):
    """Where the actors run."""

    ray_address: str | None = None
    """``auto`` or ``ray://host:port`` joins a running cluster; default: Ray on this machine."""
    device: Backend = "auto"
    """``auto`` takes CUDA where there is a GPU."""
    processes: int = Field(1, ge=1)
    """Training ranks, one per GPU; weights, gradients and optimiser state are sharded over them."""
    expert_parallel: int = Field(1, ge=1)
    """Ranks that share the experts of a MoE layer in ``align grpo``: each holds some of them, and tokens
    travel. Divides ``processes``."""
    placement: Literal["hybrid", "disaggregated"] = "hybrid"
    """``hybrid``: ranks and engines of ``align grpo`` share devices and take turns. ``disaggregated``: each
    has a device of its own; with ``grpo.schedule: async`` they work at the same time."""
    reward_devices: int = Field(0, ge=0)
    """Devices that the reward models of ``align grpo`` have to themselves, going round them; 0: they are on
    those of the training ranks, and take turns with them."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of a machine for those who compute at the same time; default: all its cores."""
    residency: Literal["auto", "scheduled", "resident"] = "auto"
    """In ``align grpo``: each stage has on the device only what it uses (scheduled), or everything stays
    there (resident). ``auto``: scheduled on a GPU, resident on a CPU and under ``grpo.schedule: async``."""
