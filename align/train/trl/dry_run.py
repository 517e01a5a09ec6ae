"""Dry runs of the stages that TRL trains: everything that can be said without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from align.config.load import dump_recipe
from align.config.places import check_place
from align.config.recipe import RewardModelRecipe, SftRecipe
from align.plan.fit import Plan
from align.plan.params import Shape, known_shape
from align.plan.source import read_config
from align.plan.table import plan_table
from align.train.trl.unseen import prepared_or_unseen

R = TypeVar("R", SftRecipe, RewardModelRecipe)


class Data(Protocol):
    """What a stage's ``prepare`` gives, as far as a dry run looks at it."""

    @property
    def rows(self) -> Any: ...

    @property
    def summary(self) -> Sequence[Any]: ...


def dry_run(
    recipe: R,
    *,
    file: Path,
    console: Console,
    prepare: Callable[..., Data],
    table: Callable[[Any], Table],
    plan: Callable[[R, Shape, int | None], Plan],
) -> None:
    """Show the resolved recipe, the data and the plan; start nothing.

    Data on the hub, when the hub is out of reach, is said to be unseen, in the last line.

    Args:
        prepare: the stage's data, of ``(recipe, file=file)``.
        table: of the summary of that data.
        plan: of the recipe, the model's shape and the number of rows, None where they are unseen.

    Raises:
        RecipeError: the run directory cannot be made.
        AlignError: as ``prepare`` does, for what is on this machine.
    """
    check_place(recipe.directory, key=recipe.directory_key, file=file)
    console.print(dump_recipe(recipe), markup=False)
    shape, unplanned = known_shape(read_config(recipe.policy.path))
    prepared, unseen = prepared_or_unseen(recipe, prepare, file=file)
    if prepared is not None:
        console.print(table(prepared.summary))
    if shape is not None:
        console.print(plan_table(plan(recipe, shape, len(prepared.rows) if prepared else None)))
    else:
        console.print(Text(f"warning: {unplanned}", "yellow"), soft_wrap=True)
    if prepared is None:  # last, where it is read
        console.print(Text(f"warning: the data was not looked at: {unseen}", "yellow"), soft_wrap=True)
