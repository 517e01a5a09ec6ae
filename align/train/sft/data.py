"""What supervised fine-tuning is fed: checked, tokenised and laid out in rows before weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk

from align.config.recipe import SftRecipe
from align.dataset.chat import set_template
from align.dataset.conversations import load_conversations
from align.dataset.rows.mixture import PartSummary
from align.errors import RecipeError
from align.model.experts.routers import is_moe
from align.model.files.check import check_model
from align.model.files.hub import reach_hub
from align.model.files.load import load_config, load_tokenizer
from align.plan.fit import rows_per_step
from align.train.context import check_lengths
from align.train.sft.batches import pack, training_rows
from align.train.trl.arguments import check_processes


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that can be checked before weights are loaded."""

    tokenizer: Any
    rows: Dataset
    """What is trained on, all epochs, in order."""
    held_out: Dataset | None
    summary: list[PartSummary]
    """One line per part of the mixture."""

    def save(self, folder: Path) -> None:
        """Write the rows where other processes map them into memory."""
        self.rows.save_to_disk(folder / "rows")
        if self.held_out is not None:
            self.held_out.save_to_disk(folder / "held_out")

    @staticmethod
    def load(folder: Path, tokenizer: Any) -> Prepared:
        """Read :meth:`save`; the summary stays with the process that saved."""
        held_out = None
        if (folder / "held_out").is_dir():
            held_out = load_from_disk(folder / "held_out").with_format("numpy")
        rows = load_from_disk(folder / "rows").with_format("numpy")
        return Prepared(tokenizer, rows, held_out, [])


def prepare(recipe: SftRecipe, *, file: Path) -> Prepared:
    """Resolve model configuration, tokenizer and data.

    Raises:
        AlignError: whichever of them is wrong, naming file, key and remedy.
    """
    reach_hub(recipe.policy.path, file=file)
    config = load_config(recipe.policy)
    if recipe.sft.balance_alpha > 0 and not is_moe(config):
        raise RecipeError(
            "only MoE policies have a balance loss",
            file=file,
            key="sft.balance_alpha",
            remedy="leave it out for this policy",
        )
    check_processes(recipe, file=file)
    check_model(recipe.policy)
    tokenizer = ready_tokenizer(recipe)
    conversations = load_conversations(recipe.data, tokenizer, recipe.sft, seed=recipe.seed, file=file)
    lengths = conversations.lengths
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    check_lengths(
        lengths[longest], config, key="sft.max_length", file=file, row=conversations.rows[longest]["id"]
    )
    enough = recipe.sft.max_steps * rows_per_step(recipe) if recipe.sft.max_steps else None
    rows = training_rows(conversations.epoch, recipe.sft, seed=recipe.seed, enough=enough)
    held_out = conversations.heldout
    if held_out is not None and recipe.sft.packing:
        held_out = pack(held_out, recipe.sft.max_length)
    if held_out is not None:
        held_out = held_out.with_format("numpy")
    return Prepared(tokenizer, rows, held_out, conversations.summary)


def ready_tokenizer(recipe: SftRecipe) -> Any:
    """The policy's tokenizer with the recipe's chat template on it."""
    tokenizer = load_tokenizer(recipe.policy)
    set_template(tokenizer, recipe.policy.chat_template)
    return tokenizer
