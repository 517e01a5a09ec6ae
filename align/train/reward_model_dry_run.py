"""``align rm --dry-run``: everything that can be said without training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from rich.console import Console
from rich.table import Table
from rich.text import Text

from align.config.load import dump_recipe
from align.config.recipe import RewardModelRecipe
from align.dataset.preference_rows import NOISE
from align.dataset.preferences import PreferenceSummary
from align.errors import AlignError, DataError
from align.model.hub import on_hub
from align.plan.params import read_shape
from align.plan.reward_model import plan_reward_model
from align.plan.source import read_config
from align.plan.table import plan_table
from align.train.reward_model_data import Prepared, prepare


def dry_run_reward_model(recipe: RewardModelRecipe, *, file: Path, console: Console) -> None:
    """Show the resolved recipe, the data and the plan; start nothing.

    A model or data set that is only on the hub, when the hub is out of reach, is no error here: the
    plan needs no more than the model's shape, and the data is said to be unseen.

    Raises:
        AlignError: as :func:`align.train.reward_model_data.prepare` does, for what is on this machine.
    """
    console.print(dump_recipe(recipe), markup=False)
    shape = read_shape(read_config(recipe.policy.path))
    prepared, unseen = _look(recipe, file)
    if prepared is not None:
        console.print(preference_table(prepared.summary))
    else:
        console.print(Text(f"data was not looked at: {unseen}", "yellow"))
    console.print(plan_table(plan_reward_model(recipe, shape, len(prepared.rows) if prepared else None)))


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


def _look(recipe: RewardModelRecipe, file: Path) -> tuple[Prepared | None, str]:
    """The data, or why it cannot be seen."""
    tokenizer = recipe.policy.tokenizer or recipe.policy.path
    for source in (recipe.policy.path, tokenizer):
        if on_hub(source) and not isinstance(try_to_load_from_cache(source, "config.json"), str):
            return None, f"the model {source} is on the hub and not on this machine"
    try:
        return prepare(recipe, file=file), ""
    except DataError as error:
        if not _about_hub(error, recipe):
            raise
        return None, error.message


def _about_hub(error: AlignError, recipe: RewardModelRecipe) -> bool:
    """Whether the error says that a hub data set is out of reach."""
    key = error.key or ""
    part = re.fullmatch(r"data\.parts\.(.+)\.path", key)
    path = recipe.data.parts[part[1]].path if part else recipe.data.path
    return key.endswith(".path") and path is not None and on_hub(path)
