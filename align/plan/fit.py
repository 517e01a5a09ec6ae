"""Does a recipe fit, and what does it cost: from the recipe and a model configuration alone."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

from align.config.recipe import GrpoRecipe, SftRecipe
from align.config.rollout import RolloutConfig
from align.config.run import ClusterConfig
from align.errors import ModelError
from align.plan.memory import (
    BYTES,
    TrainState,
    kv_bytes_per_token,
    lora_parameters,
    memory_by_stage,
    trainer_memory,
)
from align.plan.params import Shape, read_shape
from align.plan.residency import Household
from align.plan.source import read_config

GIB = 2**30
ASSUMED_GPU_GIB = 80
"""Memory of a GPU where none can be asked."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run needs."""

    shape: Shape
    trainable: int
    memory: dict[str, int]
    """Kind → bytes on one device."""
    devices: int
    device: str
    """Name of the device, with a word on where its size comes from."""
    device_bytes: int
    tokens_per_step: int
    """Most tokens one optimiser step can see, all devices together."""
    flops_per_step: float
    steps: int | None
    """None: not known before the data is read."""
    notes: list[str] = field(default_factory=list)
    stages: dict[str, dict[str, int]] = field(default_factory=dict)
    """Stage of a step → its part of ``memory``; empty where all kinds are there at once."""

    @property
    def needed(self) -> int:
        """Bytes on one device, in the largest stage."""
        return sum(self.largest_stage.values())

    @property
    def largest_stage(self) -> dict[str, int]:
        """Kind → bytes on one device, where there are most."""
        return max(self.stages.values(), key=lambda kinds: sum(kinds.values()), default=self.memory)

    @property
    def fits(self) -> bool:
        """Whether they are there; a tenth is left for what is not counted."""
        return self.needed <= 0.9 * self.device_bytes


def plan_sft(recipe: SftRecipe, shape: Shape, rows: int | None = None) -> Plan:
    """Plan supervised fine-tuning.

    Args:
        recipe: the recipe.
        shape: of its policy.
        rows: rows of all epochs together (packed rows, under packing), where known.
    """
    sft, policy = recipe.sft, recipe.policy
    count = recipe.cluster.processes
    trainable = lora_parameters(shape, policy.lora) if policy.lora else shape.total
    pass_tokens = sft.batch_size * sft.max_length
    state = TrainState(policy.dtype, count, trainable, pass_tokens, policy.gradient_checkpointing)
    device, device_bytes = describe_device(recipe.cluster)
    per_step = rows_per_step(recipe) * sft.max_length
    flops = training_flops(shape, trainable, sft.max_length, policy.gradient_checkpointing)
    steps = sft.max_steps
    if rows is not None:
        steps = sft_steps(recipe, rows)
    return Plan(
        shape=shape,
        trainable=trainable,
        memory=trainer_memory(shape, state),
        devices=count,
        device=device,
        device_bytes=device_bytes,
        tokens_per_step=per_step,
        flops_per_step=per_step * flops,
        steps=steps,
        notes=[] if sft.packing else ["tokens per step: if every conversation had the maximum length"],
    )


def sft_steps(recipe: SftRecipe, rows: int) -> int:
    """Optimiser steps over ``rows`` rows, all epochs together; an incomplete last batch counts."""
    steps = math.ceil(rows / rows_per_step(recipe))
    return min(steps, recipe.sft.max_steps) if recipe.sft.max_steps else steps


def rows_per_step(recipe: SftRecipe) -> int:
    """Rows of one optimiser step, all processes together."""
    return recipe.sft.batch_size * recipe.sft.gradient_accumulation * recipe.cluster.processes


def plan_grpo(recipe: GrpoRecipe, shape: Shape) -> Plan:
    """Plan GRPO: what one training device holds. In turns (``cluster.placement: hybrid``) that includes an
    engine; apart, the notes say what an engine's own device holds."""
    grpo, policy, rollout = recipe.grpo, recipe.policy, recipe.rollout
    count = recipe.cluster.processes
    trainable = lora_parameters(shape, policy.lora) if policy.lora else shape.total
    length = grpo.max_prompt_tokens + rollout.max_new_tokens
    device, device_bytes = describe_device(recipe.cluster)
    kind = "cuda" if device.startswith("GPU") else "cpu"
    pass_tokens = max(grpo.pass_tokens(kind), length)
    state = TrainState(policy.dtype, count, trainable, pass_tokens, policy.gradient_checkpointing)
    memory = trainer_memory(shape, state)
    if grpo.beta > 0 and not policy.lora:
        memory["reference"] = shape.total * BYTES[policy.dtype] // count
    engine = rollout.dtype or policy.dtype
    memory["engine weights"] = shape.total * BYTES[engine] // rollout.tensor_parallel
    if kind == "cuda":
        reserved = int(rollout.gpu_memory_utilization * device_bytes)
        memory["engine KV cache"] = max(0, reserved - memory["engine weights"])
    else:
        memory["engine KV cache"] = int(rollout.kv_cache_gib * GIB)
    sizes, unknown = _reward_models(recipe)
    if sizes:  # one after the other on a GPU; on a CPU they stay
        memory["reward models"] = max(sizes) if kind == "cuda" else sum(sizes)
    room = memory["engine KV cache"] // kv_bytes_per_token(shape, engine) // length
    apart = []
    if recipe.cluster.placement == "disaggregated":
        own = memory.pop("engine weights") + memory.pop("engine KV cache")
        apart = [
            f"an engine has a device of its own ({rollout.engines} do) and holds {own / GIB:,.1f} GiB there"
        ]
    stages = memory_by_stage(memory, Household.of(recipe, kind))
    per_step = grpo.prompts_per_step * grpo.group_size * length
    passes = grpo.epochs * training_flops(shape, trainable, length, policy.gradient_checkpointing)
    forward = forward_flops(shape, length)
    extra = forward * (1 + (grpo.beta > 0) + (grpo.epochs * grpo.minibatches > 1))
    return Plan(
        shape=shape,
        trainable=trainable,
        memory=memory,
        devices=count,
        device=device,
        device_bytes=device_bytes,
        tokens_per_step=per_step,
        flops_per_step=per_step * (passes + extra),
        steps=grpo.steps,
        notes=[
            f"the KV cache holds {room} sequences of {length} tokens; "
            f"up to {rollout.max_num_seqs} are decoded at once",
            "tokens per step: if every prompt and completion had the maximum length",
            *apart,
            *_pieces(recipe, pass_tokens),
            *_partial(rollout),
            *_scheduling(recipe, kind, memory),
            *(f"reward model {name} is not counted: its shape is not known here" for name in unknown),
        ],
        stages=stages,
    )


def _pieces(recipe: GrpoRecipe, pass_tokens: int) -> Iterator[str]:
    prompt, longest = recipe.grpo.max_prompt_tokens, recipe.rollout.max_new_tokens
    group = prompt + recipe.grpo.group_size * longest
    if group > pass_tokens:
        at_once = max(1, (pass_tokens - prompt) // longest)
        yield (
            f"a group of the longest completions has {group} tokens, one pass of the trainer {pass_tokens} "
            f"(grpo.micro_batch_tokens): such a group's prompt is computed once per {at_once} completions"
        )


def _scheduling(recipe: GrpoRecipe, kind: str, memory: dict[str, int]) -> Iterator[str]:
    if recipe.cluster.residency != "auto" or recipe.grpo.schedule == "async" or recipe.scheduled(kind):
        return
    moving = recipe.cluster.model_copy(update={"residency": "scheduled"})
    household = Household.of(recipe.model_copy(update={"cluster": moving}), kind)
    largest = max(sum(kinds.values()) for kinds in memory_by_stage(memory, household).values())
    yield f"with cluster.residency=scheduled its largest stage needs {largest / GIB:,.1f} GiB"


def _partial(rollout: RolloutConfig) -> Iterator[str]:
    if budget := rollout.partial_tokens:
        steps = math.ceil(rollout.max_new_tokens / budget)
        yield f"a completion gets up to {budget} tokens a step: the longest takes {steps} steps"


def _reward_models(recipe: GrpoRecipe) -> tuple[list[int], list[str]]:
    """Bytes of each reward model in bf16, and the names of those that cannot be read."""
    sizes, unknown = [], []
    for name, term in recipe.rewards.terms.items():
        if term.model is not None:
            try:
                shape = read_shape(read_config(term.model))
            except ModelError:
                unknown.append(name)
            else:
                sizes.append(BYTES["bfloat16"] * (shape.total - (0 if shape.tied else shape.embedding)))
    return sizes, unknown


def forward_flops(shape: Shape, length: int) -> float:
    """Per token of a sequence of ``length``: 2 per active weight, and causal attention."""
    return 2.0 * shape.active_without_embedding + shape.layers * shape.score_width * length


def training_flops(shape: Shape, trainable: int, length: int, checkpointing: bool) -> float:
    """Per token: forward, gradient of the inputs, gradient of the trained weights, recomputation."""
    forward = forward_flops(shape, length)
    share = min(1.0, trainable / shape.total)
    return forward * (2 + share + (1 if checkpointing else 0))


def describe_device(cluster: ClusterConfig) -> tuple[str, int]:
    """(name, bytes) of one training device: a GPU as it reports itself or as assumed, else this
    machine's memory divided by the processes on it."""
    gpu = _gpu_bytes()
    if cluster.device == "cuda" or (cluster.device == "auto" and gpu is not None):
        if gpu is None:
            return f"GPU (none here: {ASSUMED_GPU_GIB} GiB assumed)", ASSUMED_GPU_GIB * GIB
        return "GPU", gpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return "CPU (this machine's memory)", memory // cluster.processes


def _gpu_bytes() -> int | None:
    """Memory of the smallest GPU here; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    sizes = [int(line) for line in done.stdout.split() if line.isdigit()]
    return min(sizes) * 2**20 if sizes else None
