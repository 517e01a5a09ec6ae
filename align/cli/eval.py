"""``align eval``: held-out accuracy of a model."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from align.cli.common import DryRun, Overrides, RecipeFile, console, debugging
from align.config.load import load_recipe
from align.config.places import check_place
from align.config.recipe import EvalRecipe
from align.errors import DataError, RecipeError

if TYPE_CHECKING:
    from align.types import Completion, Prompt

PREDICTIONS = "predictions.jsonl"


def eval(
    recipe: RecipeFile,
    overrides: Overrides = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Run directory of an earlier evaluation to compare with.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure a model on held-out data.

    Every prompt is answered once, by vLLM, and scored by its part's metric.
    The run directory gets metrics.jsonl, and predictions.jsonl with every
    answer and its score.

    \b
    [bold]Examples[/]
      align eval recipes/quickstart/eval.yaml name=one
      align eval recipes/quickstart/eval.yaml name=two --compare runs/one
      align eval recipes/quickstart/eval.yaml policy.path=runs/quickstart/sft
    """
    loaded = load_recipe(recipe, overrides or [], kind=EvalRecipe)
    _check_free(loaded)
    earlier = _read_predictions(compare) if compare else []

    from align.train.evaluate import evaluate

    prompts, max_model_len = _prepare(loaded, recipe)
    if dry_run:
        _show_parts(loaded, prompts)
        return

    from align.report.run_directory import RunDirectory

    run = RunDirectory.create(loaded.directory, loaded.model_dump(mode="json"))
    metrics, rows = evaluate(loaded.eval, prompts, _Answers(loaded, max_model_len), file=recipe)
    with (run.path / PREDICTIONS).open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    run.metrics.write_text(json.dumps({"step": 0, **metrics}) + "\n", encoding="utf-8")
    _show_results(loaded, metrics, rows)
    if compare:
        _show_changes(compare, earlier, rows)
    run.close()


def _check_free(recipe: EvalRecipe) -> None:
    directory = recipe.directory
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise RecipeError(
            "this run directory exists already",
            file=directory,
            key="name",
            remedy="choose another with name=…, or remove it",
        )
    check_place(directory, key=recipe.directory_key)


def _read_predictions(run: Path) -> list[dict[str, Any]]:
    file = run / PREDICTIONS
    if not file.is_file():
        raise DataError(
            "no predictions to compare with", file=file, remedy="name the run directory of an `align eval`"
        )
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise DataError(
            f"damaged predictions: {error}", file=file, remedy="run that evaluation again"
        ) from error


def _prepare(recipe: EvalRecipe, file: Path) -> tuple[dict[str, list[Prompt]], int]:
    """Everything that can be checked without an engine: the prompts, and the longest sequence."""
    from align.dataset.chat import set_template
    from align.dataset.prompts import load_eval_prompts
    from align.model.files.load import load_config, load_tokenizer
    from align.train.context import Context, check_positions
    from align.train.evaluate import check_metrics

    if recipe.policy.init == "random":
        raise RecipeError(
            "fresh weights have nothing to measure", file=file, key="policy.init", remedy="leave it out"
        )
    if not recipe.eval.parts:
        raise RecipeError("no held-out parts", file=file, key="eval.parts", remedy="name at least one")
    config = load_config(recipe.policy)
    tokenizer = load_tokenizer(recipe.policy)
    set_template(tokenizer, recipe.policy.chat_template)
    prompts = load_eval_prompts(recipe.eval, tokenizer, file=file)
    check_metrics(recipe.eval, prompts, file=file)
    longest = max(len(prompt.token_ids) for part in prompts.values() for prompt in part)
    context = Context(longest + recipe.eval.max_new_tokens, "eval.max_new_tokens")
    check_positions(context, config, file=file)
    return prompts, context.tokens


class _Answers:
    """Starts the engine on the first question."""

    def __init__(self, recipe: EvalRecipe, max_model_len: int) -> None:
        self.recipe, self.max_model_len = recipe, max_model_len

    def __call__(
        self, prompts: Sequence[Prompt], max_new_tokens: int, temperature: float
    ) -> list[Completion]:
        if not debugging():
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        import torch

        from align.model.files.load import load_config, resolve_model
        from align.rollout.engine import Engine

        recipe, policy = self.recipe, self.recipe.policy
        device = recipe.cluster.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if recipe.cluster.threads:
            torch.set_num_threads(recipe.cluster.threads)
        router = getattr(load_config(policy), "moe_router_dtype", None)
        console.print(f"starting the engine for {policy.path}")
        engine = Engine(
            resolve_model(policy.path),
            recipe.rollout,
            dtype=recipe.rollout.dtype or policy.dtype,
            max_model_len=self.max_model_len,
            seed=recipe.seed,
            device=device,
            tokenizer=resolve_model(policy.tokenizer) if policy.tokenizer else None,
            trust_remote_code=policy.trust_remote_code,
            overrides={"moe_router_dtype": router} if router else None,
        )
        console.print(f"answering {len(prompts)} prompts")
        return engine.answer(prompts, max_new_tokens=max_new_tokens, temperature=temperature)


def _show_parts(recipe: EvalRecipe, prompts: Mapping[str, Sequence[Prompt]]) -> None:
    table = Table(
        "part", "metric", "rows", "longest prompt", title=str(recipe.directory), title_justify="left"
    )
    for name, part in recipe.eval.parts.items():
        longest = max(len(prompt.token_ids) for prompt in prompts[name])
        table.add_row(name, part.metric, str(len(prompts[name])), f"{longest} tokens")
    console.print(table)


def _show_results(
    recipe: EvalRecipe, metrics: Mapping[str, float], rows: Sequence[Mapping[str, Any]]
) -> None:
    from align.train.evaluate import interval

    scores: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["score"] is not None:
            scores[row["part"]].append(row["score"])
    title = f"{recipe.policy.path} → {recipe.directory}"
    table = Table("part", "metric", title=title, title_justify="left")
    for heading in ("mean", "95% interval", "scored", "abstained", "failed", "cut off"):
        table.add_column(heading, justify="right")
    for name, part in recipe.eval.parts.items():
        low, high = interval(scores[name])
        counts = [f"{metrics[f'eval/{name}/{count}']:.0f}" for count in ("scored", "abstained", "failed")]
        cut_off = f"{metrics[f'eval/{name}/truncated']:.1%}"
        mean = f"{metrics[f'eval/{name}']:.3f}"
        table.add_row(name, part.metric, mean, f"{low:.3f} … {high:.3f}", *counts, cut_off)
    console.print(table)
    failed = next((row for row in rows if row["outcome"] in {"error", "timeout"}), None)
    if failed is not None:
        reason = failed["detail"].strip().splitlines()[-1]
        console.print(f"first failed metric call, on {failed['prompt_id']}: {reason}", markup=False)


def _show_changes(
    other: Path, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> None:
    from align.train.evaluate import compare

    table = Table("part", title=f"change since {other}", title_justify="left")
    for heading in ("before", "after", "change", "95% interval", "common prompts"):
        table.add_column(heading, justify="right")
    for each in compare(before, after):
        low, high = each.change - each.half_width, each.change + each.half_width
        table.add_row(
            each.part,
            f"{each.before:.3f}",
            f"{each.after:.3f}",
            f"{each.change:+.3f}",
            f"{low:+.3f} … {high:+.3f}",
            str(each.prompts),
        )
    console.print(table)
    if not table.row_count:
        console.print("the two evaluations have no prompt in common")
