"""What supervised fine-tuning is fed: checked, tokenised and laid out in rows before weights are loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from huggingface_hub import get_session, is_offline_mode, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT

from align.config.recipe import SftRecipe
from align.dataset.chat import set_template
from align.dataset.conversations import load_conversations
from align.dataset.mixture import PartSummary
from align.errors import ModelError, RecipeError
from align.model.load import load_config, load_tokenizer
from align.model.moe import is_moe
from align.plan.fit import rows_per_step
from align.train.sft_arguments import device_of
from align.train.sft_batches import pack, training_rows


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
    _reach_hub(recipe.policy.path, file)
    config = load_config(recipe.policy)
    if recipe.sft.balance_alpha > 0 and not is_moe(config):
        raise RecipeError(
            "only MoE policies have a balance loss",
            file=file,
            key="sft.balance_alpha",
            remedy="leave it out for this policy",
        )
    if recipe.cluster.processes > 1 and device_of(recipe) == "cpu" and recipe.policy.dtype != "float32":
        raise RecipeError(
            "several processes on the CPU train in float32 only",
            file=file,
            key="policy.dtype",
            remedy="set policy.dtype=float32, or cluster.processes=1",
        )
    tokenizer = ready_tokenizer(recipe)
    conversations = load_conversations(recipe.data, tokenizer, recipe.sft, seed=recipe.seed, file=file)
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


def _reach_hub(path: str, file: Path) -> None:
    """Fail at once where the libraries would try six times to reach the hub."""
    if not on_hub(path) or is_offline_mode() or isinstance(try_to_load_from_cache(path, "config.json"), str):
        return
    try:
        get_session().head(ENDPOINT, timeout=5)
    except Exception as error:  # name, route, proxy, certificate, time: whatever the cause
        raise ModelError(
            f"the model {path!r} is not on this machine, and the hub ({ENDPOINT}) cannot be reached",
            file=file,
            key="policy.path",
            remedy="set policy.path to a local model directory, or run where the hub is in reach",
        ) from error


def on_hub(path: str) -> bool:
    """Whether a path can only be a hub id: nothing local has that name, and it has a hub id's form."""
    return not Path(path).expanduser().exists() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) is not None
