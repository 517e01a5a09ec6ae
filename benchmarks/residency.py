"""What scheduling the engine's memory costs and saves, beside the same steps with everything resident.

    python benchmarks/residency.py [--recipe FILE] [--rounds 5] [key.path=value …]

Runs real GRPO steps of the recipe under Ray, in turn with `cluster.residency` scheduled and resident,
on the same trainer and engine, so that both see the same machine. Prints medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import ray

from align.cluster import policy_actor, policy_group, rollout_actor, rollout_group
from align.cluster.memory import together
from align.cluster.residency import Residency
from align.config.load import load_recipe
from align.config.recipe import GrpoRecipe
from align.plan.residency import Household
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory
from align.train.grpo.build import Job, start_job
from align.train.grpo.loop import grpo
from align.train.grpo.prepared import prepare

CHOICES = ("resident", "scheduled")


PolicyBase = policy_actor.PolicyActor.__ray_metadata__.modified_class
RolloutBase = rollout_actor.RolloutActor.__ray_metadata__.modified_class


class Working:
    def work(self) -> float:
        """Seconds of processor time so far, which other programs on the machine do not stretch."""
        return time.process_time()


@ray.remote
class TimedPolicy(Working, PolicyBase):
    pass


@ray.remote(concurrency_groups=rollout_actor.CALLS)
class TimedRollout(Working, RolloutBase):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="recipes/smollm2_gsm8k/grpo.yaml")
    parser.add_argument("--rounds", type=int, default=5)
    args, overrides = parser.parse_known_args()
    policy_group.PolicyActor, rollout_group.RolloutActor = TimedPolicy, TimedRollout
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"grpo.steps={2 * args.rounds + 2}", "report.console=false", f"run_dir={folder}/run"]
        recipe = load_recipe(args.recipe, [*settings, *overrides], kind=GrpoRecipe)
        rows = measure(recipe, Path(args.recipe))
    show(recipe, {choice: found[1:] for choice, found in rows.items()})  # the first round warms up


def measure(recipe: GrpoRecipe, file: Path) -> dict[str, list[dict[str, float]]]:
    """Per choice one row a step: seconds by stage, ``wall``, ``work``, and peaks in GiB."""
    prepared = prepare(recipe, file=file)
    run = RunDirectory.create(Path(recipe.run_dir or ""), recipe.model_dump(mode="json"))
    rows: dict[str, list[dict[str, float]]] = {choice: [] for choice in CHOICES}
    with ExitStack() as stack:
        reporter = stack.enter_context(Reporter(run, recipe.report, recipe.grpo.steps))
        job = start_job(recipe, prepared, run, reporter, stack, file)
        actors = [job.policy.actors[0], job.rollout.actors[0]]
        stages = {choice: residency(recipe, choice, job) for choice in CHOICES}
        job.parts.sync.push()
        for step in range(recipe.grpo.steps):
            choice = CHOICES[step % 2]
            job.sync.want = stages[choice].want
            took: dict[str, float] = {}
            start, worked = time.perf_counter(), work(actors)
            next(
                grpo(
                    recipe,
                    replace(job.parts, stages=stages[choice]),
                    step,
                    lambda stats, took=took: took.update(stats.seconds),
                )
            )
            took |= {"wall": time.perf_counter() - start, "work": work(actors) - worked}
            rows[choice].append(took | stages[choice].metrics())
    return rows


def work(actors: list) -> float:
    return sum(ray.get([actor.work.remote() for actor in actors]))


def peaks(job: Job) -> list[float]:
    return [*job.policy.peaks_gib(), *job.rollout.peaks_gib()]


def residency(recipe: GrpoRecipe, choice: str, job: Job) -> Residency:
    cluster = recipe.cluster.model_copy(update={"residency": choice})
    household = Household.of(recipe.model_copy(update={"cluster": cluster}), "cpu")
    movers = {"engine": job.rollout, "kv_cache": job.rollout}
    return Residency(household, movers, household.present, lambda: together(peaks(job), "cpu"))


def show(recipe: GrpoRecipe, rows: dict[str, list[dict[str, float]]]) -> None:
    """Print medians over the rounds."""
    completions = recipe.grpo.prompts_per_step * recipe.grpo.group_size
    print(f"{recipe.policy.path}: {completions} completions, up to {recipe.rollout.max_new_tokens} tokens")
    print(f"KV cache {recipe.rollout.kv_cache_gib:g} GiB")
    print(f"medians of {len(rows['resident'])} steps each, in turn\n")
    print(f"{'':<24}{'resident':>12}{'scheduled':>12}")
    names = list(dict.fromkeys(name for row in (rows["scheduled"][0], rows["resident"][0]) for name in row))
    for name in names:
        values = [statistics.median(row.get(name, 0.0) for row in rows[choice]) for choice in CHOICES]
        print(f"{name:<24}{values[0]:>12.3f}{values[1]:>12.3f}")
    pairs = list(zip(rows["scheduled"], rows["resident"], strict=True))
    print()
    for name in ("wall", "work"):
        ratio = statistics.median(a[name] / b[name] for a, b in pairs)
        print(f"{name}, scheduled / resident      {ratio:.3f}")
    peak = {choice: statistics.median(max(gib(row)) for row in rows[choice]) for choice in CHOICES}
    print(f"peak, scheduled / resident      {peak['scheduled'] / peak['resident']:.3f}")


def gib(row: dict[str, float]) -> list[float]:
    return [value for name, value in row.items() if name.endswith("_gib")]


if __name__ == "__main__":
    main()
