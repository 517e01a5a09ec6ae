"""``align sft --dry-run``: everything that can be said without training."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from align.config.recipe import SftRecipe
from align.dataset.rows.mixture import PartSummary
from align.plan.fit import plan_sft
from align.train.sft.data import prepare
from align.train.trl.dry_run import dry_run


def dry_run_sft(recipe: SftRecipe, *, file: Path, console: Console) -> None:
    """Show the resolved recipe, the data and the plan, as :func:`align.train.trl.dry_run.dry_run` does."""
    dry_run(recipe, file=file, console=console, prepare=prepare, table=_mixture, plan=plan_sft)


def _mixture(summary: list[PartSummary]) -> Table:
    table = Table("part", "source", title="data", title_justify="left")
    for heading in ("rows", "too long", "rows an epoch", "share of rows", "share of tokens"):
        table.add_column(heading, justify="right")
    for part in summary:
        shares = (f"{part.row_share:.1%}", f"{part.token_share:.1%}")
        counts = (f"{part.rows:,}", f"{part.dropped + part.truncated:,}", f"{part.epoch:,}")
        table.add_row(part.name, part.source, *counts, *shares)
    return table
