"""``align rm --dry-run``: everything that can be said without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from align.config.recipe import RewardModelRecipe
from align.dataset.preference.load import PreferenceSummary
from align.dataset.preference.rows import NOISE
from align.plan.reward_model import plan_reward_model
from align.train.reward_model.data import prepare
from align.train.trl.dry_run import dry_run


def dry_run_reward_model(recipe: RewardModelRecipe, *, file: Path, console: Console) -> None:
    """Show the resolved recipe, the data and the plan, as :func:`align.train.trl.dry_run.dry_run` does."""
    dry_run(
        recipe, file=file, console=console, prepare=prepare, table=preference_table, plan=plan_reward_model
    )


def preference_table(summary: Sequence[PreferenceSummary]) -> Table:
    """What the parts hold and what was left out."""
    table = Table("part", "source", title="data", title_justify="left")
    headings = ("rows", "left out", *NOISE, "truncated", "train", "held out", "an epoch")
    for heading in headings:
        table.add_column(heading, justify="right")
    for line in summary:
        counts = (line.found, line.excluded, *line.noise.values(), line.truncated)
        cells = (*counts, line.train, line.held_out, line.epoch)
        table.add_row(line.name, line.source, *(f"{count:,}" for count in cells))
    return table
