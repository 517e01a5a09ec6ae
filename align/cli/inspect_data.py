"""``align inspect-data``: what a recipe's data look like to the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from align.cli.common import Overrides, RecipeFile, console
from align.errors import RecipeError

if TYPE_CHECKING:
    from align.config.policy import PolicyConfig
    from align.dataset.conversations import Conversations
    from align.types import Prompt

_QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)


def inspect_data(
    recipe: RecipeFile,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="Samples to show of each part.")] = 2,
) -> None:
    """Show a recipe's data as the model gets them: parts, lengths in tokens, a few samples.

    In conversations the trained tokens are green; the rest is context.

    \b
    [bold]Examples[/]
      align inspect-data recipes/quickstart/sft.yaml
      align inspect-data recipes/quickstart/grpo.yaml --rows 5
    """
    from align.config.load import check_kind, load_recipe, read_tree
    from align.config.recipe import EvalRecipe, GrpoRecipe, RewardModelRecipe, SftRecipe

    kind = read_tree(recipe).get("kind")
    if kind == "sft":
        _show_sft(load_recipe(recipe, overrides or [], kind=SftRecipe), recipe, rows)
    elif kind == "rm":
        _show_pairs(load_recipe(recipe, overrides or [], kind=RewardModelRecipe), recipe)
    elif kind == "grpo":
        _show_grpo(load_recipe(recipe, overrides or [], kind=GrpoRecipe), recipe, rows)
    elif kind == "eval":
        _show_eval(load_recipe(recipe, overrides or [], kind=EvalRecipe), recipe, rows)
    else:
        check_kind(kind, file=recipe)
        raise RecipeError(
            f"a recipe of kind {kind!r} has no data of its own",
            file=recipe,
            key="kind",
            remedy="name one of its stages' recipes (sft, rm, grpo or eval)",
        )


def _tokenizer(policy: PolicyConfig) -> Any:
    from align.dataset.chat import set_template
    from align.model.files.load import load_tokenizer

    tokenizer = load_tokenizer(policy)
    set_template(tokenizer, policy.chat_template)
    return tokenizer


def _show_sft(recipe: Any, file: Path, rows: int) -> None:
    from align.dataset.conversations import load_conversations

    tokenizer = _tokenizer(recipe.policy)
    loaded = load_conversations(recipe.data, tokenizer, recipe.sft, seed=recipe.seed, file=file)
    _show_mixture(loaded)
    lengths = {name: [loaded.lengths[place] for place in part] for name, part in loaded.parts.items()}
    _show_lengths("Tokens per conversation", lengths)
    tokens = sum(map(sum, lengths.values()))
    trained = sum(loaded.trained[place] for part in loaded.parts.values() for place in part)
    console.print(f"{trained:,} of {tokens:,} tokens are trained ({trained / tokens:.1%})")
    for part in loaded.parts.values():
        for row in loaded.rows.select(part[:rows]):
            _show_sample(row["id"], tokenizer, row["input_ids"], row["assistant_masks"])


def _show_pairs(recipe: Any, file: Path) -> None:
    from align.train.reward_model.data import prepare
    from align.train.reward_model.dry_run import preference_table

    console.print(preference_table(prepare(recipe, file=file).summary))


def _show_grpo(recipe: Any, file: Path, rows: int) -> None:
    from align.dataset.prompts import load_eval_prompts, load_prompts
    from align.dataset.rows.mixture import shares

    tokenizer = _tokenizer(recipe.policy)
    prompts = load_prompts(recipe.data, tokenizer, recipe.grpo, file=file)
    parts = {name: [prompt for prompt in prompts if prompt.part == name] for name in recipe.data.parts}
    weights = {name: part.weight for name, part in recipe.data.parts.items()}
    portions = shares({name: len(part) for name, part in parts.items()}, weights)
    _show_prompts("Prompts", parts, tokenizer, rows, portions)
    held = load_eval_prompts(recipe.eval, tokenizer, recipe.grpo, file=file)
    if held:
        _show_prompts("Held-out prompts", held, tokenizer, rows)


def _show_eval(recipe: Any, file: Path, rows: int) -> None:
    from align.dataset.prompts import load_eval_prompts

    tokenizer = _tokenizer(recipe.policy)
    _show_prompts("Held-out prompts", load_eval_prompts(recipe.eval, tokenizer, file=file), tokenizer, rows)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _show_mixture(loaded: Conversations) -> None:
    table = _table(
        f"Mixture: {sum(line.epoch for line in loaded.summary):,} rows an epoch",
        "part", "source rows", "left out", "too long", "truncated", "usable", "an epoch", "repeated",
        "share of rows", "share of tokens",
    )  # fmt: skip
    for line in loaded.summary:
        counts = (
            line.found,
            line.excluded,
            line.dropped,
            line.truncated,
            line.rows,
            line.epoch,
            line.repeated,
        )
        table.add_row(
            line.name, *(f"{count:,}" for count in counts), f"{line.row_share:.1%}", f"{line.token_share:.1%}"
        )
    console.print(table)


def _show_prompts(
    title: str,
    parts: dict[str, list[Prompt]],
    tokenizer: Any,
    rows: int,
    portions: dict[str, float] | None = None,
) -> None:
    table = _table(title, "part", "prompts", *(["share of draws"] if portions else []), "columns")
    for name, prompts in parts.items():
        share = [f"{portions[name]:.1%}"] if portions else []
        table.add_row(name, f"{len(prompts):,}", *share, ", ".join(prompts[0].columns))
    console.print(table)
    _show_lengths(
        "Tokens per prompt",
        {name: [len(prompt.token_ids) for prompt in prompts] for name, prompts in parts.items()},
    )
    for prompts in parts.values():
        for prompt in prompts[:rows]:
            _show_sample(prompt.id, tokenizer, prompt.token_ids, [0] * len(prompt.token_ids))
            for column, value in prompt.columns.items():
                console.print(Text(f"  {column}: ", "dim") + Text(str(value)))


def _show_lengths(title: str, lengths: dict[str, list[int]]) -> None:
    table = _table(title, "part", "shortest", "median", "90%", "99%", "longest", "mean")
    for name, many in lengths.items():
        cells = [f"{length:,}" for length in quantiles(many, _QUANTILES)]
        table.add_row(name, *cells, f"{sum(many) / len(many):,.1f}")
    console.print(table)


def quantiles(values: Sequence[int], shares: Sequence[float]) -> list[int]:
    """For each share the smallest value that at least that share of the values does not exceed."""
    ordered = sorted(values)
    return [ordered[max(0, -int(-share * len(ordered) // 1) - 1)] for share in shares]


def _show_sample(name: str, tokenizer: Any, ids: Sequence[int], mask: Sequence[int]) -> None:
    """One sample's text as the tokens spell it, trained stretches in green."""
    text = Text()
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or mask[end] != mask[start]:
            text.append(tokenizer.decode(ids[start:end]), "green" if mask[start] else "")
            start = end
    console.print(Text(f"\n{name}", "bold") + Text(f"  {len(ids)} tokens", "dim"))
    console.print(text, soft_wrap=True)
