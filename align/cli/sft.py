"""``align sft``: supervised fine-tuning."""

from __future__ import annotations

from align.cli.common import DryRun, Overrides, RayAddress, RecipeFile, Resume, console, on_cluster


def sft(
    recipe: RecipeFile,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    ray_address: RayAddress = None,
) -> None:
    """Fine-tune a policy on a mixture of conversations.

    Only the assistant's tokens are trained. The run directory gets metrics, checkpoints and, at the
    end, final/: a model directory that transformers and vLLM load unchanged. Ctrl-C stops after the
    step in hand, with a checkpoint; --resume goes on exactly where it ended.

    \b
    [bold]Examples[/]
      align sft recipes/quickstart/sft.yaml
      align sft recipes/quickstart/sft.yaml optim.lr=1e-3 sft.epochs=1 name=short
      align sft recipes/v2_lite_chat.yaml --dry-run
    """
    from align.config.load import load_recipe
    from align.config.recipe import SftRecipe

    loaded = load_recipe(recipe, on_cluster(overrides, ray_address), kind=SftRecipe)
    if dry_run:
        from align.train.sft.dry_run import dry_run_sft

        dry_run_sft(loaded, file=recipe, console=console)
        return
    from align.train.sft.run import run_sft

    run = run_sft(loaded, file=recipe, resume=resume)
    console.print(f"done: {run}  (model in {run / 'final'}, report in {run / 'report.html'})")
