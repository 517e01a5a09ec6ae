"""``align rm``: reward-model training."""

from __future__ import annotations

from align.cli.common import DryRun, Overrides, RayAddress, RecipeFile, Resume, console, on_cluster


def rm(
    recipe: RecipeFile,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    ray_address: RayAddress = None,
) -> None:
    """Train a reward model on preference pairs or scored conversations.

    Starts from the SFT model and learns to give one number to a conversation.
    At the end it reports accuracy, calibration and length bias on held-out
    prompts, and leaves final/: a sequence classifier that transformers and
    vLLM load unchanged, with calibration.json for the reward terms of GRPO.

    \b
    [bold]Examples[/]
      align rm recipes/quickstart/rm_helpful.yaml
      align rm recipes/smollm2_hh/rm_helpful.yaml rm.max_length=256 name=short
      align rm recipes/v2_lite_rm_helpful.yaml --dry-run
    """
    from align.config.load import load_recipe
    from align.config.recipe import RewardModelRecipe

    loaded = load_recipe(recipe, on_cluster(overrides, ray_address), kind=RewardModelRecipe)
    if dry_run:
        from align.train.reward_model.dry_run import dry_run_reward_model

        dry_run_reward_model(loaded, file=recipe, console=console)
        return
    from align.train.reward_model.run import run_reward_model

    run = run_reward_model(loaded, file=recipe, resume=resume)
    console.print(
        f"done: {run}  (reward model in {run / 'final'}, report in {run / 'report.html'})", soft_wrap=True
    )
