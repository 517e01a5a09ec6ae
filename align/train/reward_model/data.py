"""What a reward model is trained on: checked, cleaned and tokenised before weights are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars, enable_progress_bars, load_from_disk

from align.config.recipe import RewardModelRecipe
from align.dataset.chat import set_template
from align.dataset.preference.load import PreferenceSummary, load_preferences
from align.dataset.preference.tokens import encode
from align.errors import RecipeError
from align.model.experts.routers import is_moe
from align.model.files.check import check_model
from align.model.files.hub import reach_hub
from align.model.files.load import load_config, load_tokenizer
from align.model.score.head import pad_apart
from align.train.context import longest_position
from align.train.reward_model.batches import training_rows
from align.train.trl.arguments import check_processes

_PROBE = ({"role": "user", "content": "Hello there."}, {"role": "assistant", "content": "Hello."})


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that can be checked before weights are loaded."""

    tokenizer: Any
    rows: Dataset
    """What is trained on, all epochs, in order."""
    held_out: Dataset
    """With ``place``, the row's number."""
    summary: list[PreferenceSummary]
    """One line per part of the mixture; empty in a launched process."""

    def save(self, folder: Path) -> None:
        """Write the rows where other processes map them into memory."""
        self.rows.save_to_disk(folder / "rows")
        self.held_out.save_to_disk(folder / "held_out")

    @staticmethod
    def load(folder: Path, tokenizer: Any) -> Prepared:
        """Read :meth:`save`; the summary stays with the process that saved."""
        rows, held_out = (load_from_disk(folder / name).with_format("numpy") for name in ("rows", "held_out"))
        return Prepared(tokenizer, rows, held_out, [])

    @property
    def facts(self) -> dict[str, float]:
        """The data in numbers, as metrics."""
        return facts(self.summary)


def facts(summary: Sequence[PreferenceSummary]) -> dict[str, float]:
    """Rows of all parts together, by what became of them, as ``data/…`` metrics."""
    counts: Counter[str] = Counter()
    for line in summary:
        counts.update({f"left_out_{kind}": count for kind, count in line.noise.items()})
        counts.update(truncated=line.truncated, train=line.train, held_out=line.held_out)
    return {f"data/{name}": float(count) for name, count in counts.items()}


def prepare(recipe: RewardModelRecipe, *, file: Path) -> Prepared:
    """Resolve model configuration, tokenizer and data.

    Raises:
        AlignError: whichever of them is wrong, naming file, key and remedy.
    """
    reach_hub(recipe.policy.path, file=file)
    _check(recipe, load_config(recipe.policy), file)
    tokenizer = ready_tokenizer(recipe)
    rm = recipe.rm
    preferences = load_preferences(recipe.data, tokenizer, rm, seed=recipe.seed, file=file)
    enough = rm.max_steps * rm.batch_size if rm.max_steps else None
    rows = training_rows(preferences, rm.epochs, enough)
    return Prepared(tokenizer, rows, _numbered(preferences.heldout), preferences.summary)


def _numbered(rows: Dataset) -> Dataset:
    disable_progress_bars()
    try:
        return rows.add_column("place", list(range(len(rows)))).with_format("numpy")
    finally:
        enable_progress_bars()


def _check(recipe: RewardModelRecipe, config: Any, file: Path) -> None:
    """What the recipe asks of the model and the machine."""
    rm, processes = recipe.rm, recipe.cluster.processes
    if rm.balance_alpha > 0 and not is_moe(config):
        raise RecipeError(
            "only MoE policies have a balance loss",
            file=file,
            key="rm.balance_alpha",
            remedy="leave it out for this policy",
        )
    positions = longest_position(config.get_text_config())
    if positions is not None and rm.max_length > positions:
        raise RecipeError(
            f"the model has {positions} positions, fewer than {rm.max_length}",
            file=file,
            key="rm.max_length",
            remedy=f"set rm.max_length to at most {positions}",
        )
    if rm.batch_size % processes:
        raise RecipeError(
            f"{rm.batch_size} rows cannot be shared evenly among {processes} processes",
            file=file,
            key="rm.batch_size",
            remedy="make it a multiple of cluster.processes",
        )
    check_processes(recipe, file=file)
    check_model(recipe.policy, score=True)


def ready_tokenizer(recipe: RewardModelRecipe) -> Any:
    """The policy's tokenizer with the recipe's chat template, and with a padding token that no
    conversation ends with."""
    tokenizer = load_tokenizer(recipe.policy)
    set_template(tokenizer, recipe.policy.chat_template)
    pad_apart(tokenizer, encode(tokenizer, _PROBE)[-1])
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "left"  # as in training
    return tokenizer
