"""A plan as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from align.plan.fit import GIB, Plan


def plan_table(plan: Plan) -> RenderableType:
    """Parameters, bytes on one device by kind, work, and whether it fits."""
    table = Table("", "", title="plan", title_justify="left", show_header=False)
    table.columns[1].justify = "right"
    for label, value in _model(plan):
        table.add_row(label, value)
    table.add_section()
    for kind, size in plan.memory.items():
        table.add_row(kind, f"{size / GIB:,.2f} GiB")
    if plan.stages:
        table.add_section()
    for stage, kinds in plan.stages.items():
        table.add_row(f"in stage {stage}", f"{sum(kinds.values()) / GIB:,.2f} GiB")
    many = f"each of {plan.devices} devices" if plan.devices > 1 else "the device"
    table.add_row(Text(f"needed on {many}", "bold"), Text(f"{plan.needed / GIB:,.2f} GiB", "bold"))
    table.add_row(plan.device, f"{plan.device_bytes / GIB:,.2f} GiB")
    table.add_section()
    for label, value in _work(plan):
        table.add_row(label, value)
    verdict = Text("fits", "bold green") if plan.fits else Text("does not fit", "bold red")
    remedy = Text("") if plan.fits else Text(f" ({_remedy(plan)})")
    return Group(table, *(Text(note, "dim") for note in plan.notes), verdict + remedy)


def _model(plan: Plan) -> Iterator[tuple[str, str]]:
    shape = plan.shape
    yield "parameters", f"{shape.total:,}"
    if shape.moe_layers:
        yield "active per token", f"{shape.active:,}"
        yield "active, without the input embedding", f"{shape.active_without_embedding:,}"
    if plan.trainable != shape.total:
        yield "trained", f"{plan.trainable:,}"


def _work(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "tokens per step, at most", f"{plan.tokens_per_step:,}"
    yield "compute per step, at most", f"{plan.flops_per_step / 1e15:,.4g} PFLOP"
    yield "steps", "not known before the data is read" if plan.steps is None else f"{plan.steps:,}"
    if plan.steps is not None:
        yield "compute of the run, at most", f"{plan.steps * plan.flops_per_step / 1e15:,.4g} PFLOP"


def _remedy(plan: Plan) -> str:
    """What takes most room, and what makes it smaller."""
    worst = max(plan.largest_stage, key=lambda kind: plan.largest_stage[kind])
    if "activations" in worst:
        return "set policy.gradient_checkpointing=true, or a smaller batch or length"
    if "KV" in worst:
        return "lower rollout.gpu_memory_utilization or rollout.kv_cache_gib"
    if plan.trainable == plan.shape.total:
        return "raise cluster.processes, or train adapters with policy.lora"
    return "raise cluster.processes, or use a smaller policy"
