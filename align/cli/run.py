"""``align run``: a pipeline of stages."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from align.cli.common import DryRun, Overrides, RecipeFile, Resume, console

if TYPE_CHECKING:
    from align.train.pipeline.run import State
    from align.train.pipeline.stages import Stage


def run(
    recipe: RecipeFile, overrides: Overrides = None, resume: Resume = False, dry_run: DryRun = False
) -> None:
    """Run a pipeline: stages in order, each fed by those before it.

    Every stage is checked before the first one starts, runs in a process of
    its own, and has a run directory inside the pipeline's. An override that
    starts with a stage's name goes to that stage.

    \b
    [bold]Examples[/]
      align run recipes/quickstart/pipeline.yaml
      align run recipes/quickstart/pipeline.yaml seed=1 name=quickstart-1
      align run recipes/quickstart/pipeline.yaml grpo.grpo.steps=20
      align run recipes/quickstart/pipeline.yaml --resume
    """
    from align.config.places import check_place
    from align.train.pipeline.run import run_pipeline
    from align.train.pipeline.stages import load_pipeline

    pipeline, stages = load_pipeline(recipe, overrides or [])
    if dry_run:
        check_place(pipeline.directory, key="run_dir" if pipeline.run_dir else "name", file=recipe)
        for stage in stages:
            console.print(f"{stage.name}: align {shlex.join(stage.command())}", soft_wrap=True)
        return
    state = run_pipeline(pipeline, stages, resume=resume, say=_say)
    _summarise(stages, state)


def _say(line: str) -> None:
    console.rule(line, align="left", characters="─")


def _summarise(stages: Sequence[Stage], state: State) -> None:
    """What each stage took, and the held-out results one beside the other."""
    from align.train.pipeline.run import measurements

    table = Table(title="stages", title_justify="left")
    for heading, justify in (
        ("stage", "left"),
        ("kind", "left"),
        ("wall time", "right"),
        ("directory", "left"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for stage in stages:
        table.add_row(stage.name, stage.kind, _clock(state.seconds(stage)), str(stage.directory))
    table.add_row("all", "", _clock(sum(state.seconds(stage) for stage in stages)), "")
    console.print(table)
    found = [each for stage in stages for each in measurements(stage)]
    if not found:
        return
    table = Table("held out", title="results", title_justify="left")
    for label, _ in found:
        table.add_column(label, justify="right")
    if len(found) > 1:
        table.add_column("change", justify="right")
    names = dict.fromkeys(name for _, metrics in found for name in metrics if name.count("/") == 1)
    for name in names:
        values = [metrics.get(name) for _, metrics in found]
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        first, last = values[0], values[-1]
        if len(found) > 1:
            cells.append("" if first is None or last is None else f"{last - first:+.3f}")
        table.add_row(name.removeprefix("eval/"), *cells)
    console.print(table)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
