"""``align grpo --dry-run``: everything that can be checked without starting an engine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from align.config.load import dump_recipe
from align.config.places import check_place
from align.config.recipe import GrpoRecipe
from align.plan.fit import plan_grpo
from align.plan.params import known_shape
from align.plan.source import read_config
from align.plan.table import plan_table
from align.train.grpo.prepared import Prepared, prepare


def dry_run_grpo(recipe: GrpoRecipe, *, file: Path, console: Console) -> None:
    """Show the resolved recipe, prompts, reward terms and the plan.

    Raises:
        RecipeError: the run directory cannot be made.
        AlignError: as :func:`align.train.grpo.prepared.prepare` does.
    """
    check_place(recipe.directory, key=recipe.directory_key, file=file)
    console.print(dump_recipe(recipe), markup=False)
    prepared = prepare(recipe, file=file)
    console.print(_prompts(prepared))
    console.print(_terms(recipe))
    if prepared.scorers:
        console.print(_scorers(prepared))
    shape, unplanned = known_shape(read_config(recipe.policy.path))
    if shape is not None:
        console.print(plan_table(plan_grpo(recipe, shape)))
    else:
        console.print(Text(f"warning: {unplanned}", "yellow"), soft_wrap=True)


def _prompts(prepared: Prepared) -> Table:
    table = Table("part", "prompts", "longest, tokens", title="prompts", title_justify="left")
    parts = {"": prepared.prompts} | {f"eval {name}": rows for name, rows in prepared.eval_prompts.items()}
    for held_out, rows in parts.items():
        for name, count in Counter(prompt.part for prompt in rows).items():
            longest = max(len(prompt.token_ids) for prompt in rows if prompt.part == name)
            table.add_row(held_out or name, f"{count:,}", f"{longest:,}")
    return table


def _terms(recipe: GrpoRecipe) -> Table:
    table = Table("term", "function or model", "weight", "where", title="rewards", title_justify="left")
    for name, term in recipe.rewards.terms.items():
        weight = "multiplier" if term.constraint else f"{term.weight:g}"
        table.add_row(name, term.function or term.model, weight, term.where or "every row")
    return table


def _scorers(prepared: Prepared) -> Table:
    table = Table(
        "term", "model", "architecture", "longest row, tokens", title="reward models", title_justify="left"
    )
    for name, files in prepared.scorers.items():
        table.add_row(name, files.source, files.config.architectures[0], f"{files.max_tokens:,}")
    return table
