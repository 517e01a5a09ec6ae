"""Where the seconds of a GRPO step go, beside raw vLLM on the same prompts.

    python benchmarks/grpo_step.py [--recipe FILE] [--steps 5] [key.path=value …]

Runs real steps of the recipe (default: SmolLM2-135M on GSM8K, 64 completions of up to 128 tokens)
under Ray. After each step the same engine answers the same prompts twice more through plain
``LLM.generate``, so all see the same machine, weights and threads; the order of magnitude of the
machine cancels in the ratios. Once with the step's own sampling parameters (a seed and log-probabilities
for each completion), once with vLLM's defaults and one request with n = G; the two take turns in coming
first. Prints medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import ray

from align.cluster import policy_actor, policy_group, rollout_actor, rollout_group
from align.config.load import load_recipe
from align.config.recipe import GrpoRecipe
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory
from align.train.grpo.build import start_job
from align.train.grpo.loop import grpo
from align.train.grpo.prepared import prepare
from align.types import StepStats

PolicyBase = policy_actor.PolicyActor.__ray_metadata__.modified_class
RolloutBase = rollout_actor.RolloutActor.__ray_metadata__.modified_class


class Busy:
    """Adds up the seconds an actor spends inside its methods, to tell work from waiting."""

    seconds = 0.0

    def take_busy(self) -> float:
        taken, self.seconds = self.seconds, 0.0
        return taken


def timed(name: str, base: type):
    def method(self, *args):
        start = time.perf_counter()
        try:
            return getattr(base, name)(self, *args)
        finally:
            self.seconds += time.perf_counter() - start

    return method


@ray.remote
class TimedPolicy(Busy, PolicyBase):
    logprobs = timed("logprobs", PolicyBase)
    ref_logprobs = timed("ref_logprobs", PolicyBase)
    update = timed("update", PolicyBase)
    publish = timed("publish", PolicyBase)
    probe = timed("probe", PolicyBase)


@ray.remote(concurrency_groups=rollout_actor.CALLS)
class TimedRollout(Busy, RolloutBase):
    load = timed("load", RolloutBase)
    score = timed("score", RolloutBase)

    def serve(self, call, group_size, step):
        start = time.perf_counter()
        for group in super().serve(call, group_size, step):
            self.seconds += time.perf_counter() - start
            yield group
            start = time.perf_counter()
        self.seconds += time.perf_counter() - start

    def raw(self, prompts, group_size, step) -> dict[str, tuple[float, int]]:
        """Plain ``LLM.generate`` with the step's parameters and with vLLM's: (seconds, tokens) of each."""
        from vllm import SamplingParams

        settings = self.engine.settings
        members = [(prompt, index) for prompt in prompts for index in range(group_size)]
        plain = SamplingParams(
            n=group_size, max_tokens=settings.max_new_tokens, temperature=settings.temperature
        )
        same = [self.engine._job(step, *member, None).params for member in members]
        turns = {"same": ([prompt for prompt, _ in members], same), "default": (prompts, plain)}
        return {name: self.generate(*turns[name]) for name in sorted(turns, reverse=bool(step % 2))}

    def generate(self, prompts, params) -> tuple[float, int]:
        self.engine.llm.reset_prefix_cache()
        start = time.perf_counter()
        outputs = self.engine.llm.generate(
            [{"prompt_token_ids": prompt.token_ids} for prompt in prompts], params, use_tqdm=False
        )
        seconds = time.perf_counter() - start
        return seconds, sum(len(each.token_ids) for output in outputs for each in output.outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="recipes/smollm2_gsm8k/grpo.yaml")
    parser.add_argument("--steps", type=int, default=5)
    args, overrides = parser.parse_known_args()
    policy_group.PolicyActor, rollout_group.RolloutActor = TimedPolicy, TimedRollout
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(
            args.recipe,
            [
                f"grpo.steps={args.steps + 1}",
                "rollout.max_new_tokens=128",
                "report.console=false",
                f"run_dir={folder}/run",
                *overrides,
            ],
            kind=GrpoRecipe,
        )
        rows = measure(recipe, Path(args.recipe))
    show(recipe, rows[1:])  # the first step warms up


def measure(recipe: GrpoRecipe, file: Path) -> list[dict[str, float]]:
    """One row of seconds and tokens per step."""
    prepared = prepare(recipe, file=file)
    directory = Path(recipe.run_dir or "")
    run = RunDirectory.create(directory, recipe.model_dump(mode="json"))
    rows: list[dict[str, float]] = []
    with ExitStack() as stack:
        reporter = stack.enter_context(Reporter(run, recipe.report, recipe.grpo.steps))
        job = start_job(recipe, prepared, run, reporter, stack, file)
        job.parts.sync.push()

        def busy() -> float:
            actors = (job.policy.actors[0], job.rollout.actors[0])
            return sum(ray.get([actor.take_busy.remote() for actor in actors]))

        def after_step(stats: StepStats) -> None:
            nonlocal start
            wall = time.perf_counter() - start
            completions = [each for group in stats.groups for each in group.completions]
            prompts = [group.prompt for group in stats.groups]
            work = busy()
            raw = ray.get(job.rollout.actors[0].raw.remote(prompts, recipe.grpo.group_size, stats.step))
            tokens = sum(len(each.token_ids) for each in completions)
            rows.append(
                stats.seconds
                | {"wall": wall, "driver": wall - work, "speed": tokens / stats.seconds["rollout"]}
                | {name: count / seconds for name, (seconds, count) in raw.items()}
            )
            start = time.perf_counter()

        busy()
        start = time.perf_counter()
        for _ in grpo(recipe, job.parts, 0, after_step):
            pass
    return rows


def show(recipe: GrpoRecipe, rows: list[dict[str, float]]) -> None:
    """Print medians over the steps."""

    def median(pick) -> float:
        return statistics.median(pick(row) for row in rows)

    stages = [
        name for name in ("data", "rollout", "score", "reference", "old", "update", "sync") if name in rows[0]
    ]
    completions = recipe.grpo.prompts_per_step * recipe.grpo.group_size
    print(f"{recipe.policy.path}: {completions} completions, up to {recipe.rollout.max_new_tokens} tokens")
    print(f"medians of {len(rows)} steps\n")
    print(f"{'stage':<12}{'seconds':>10}{'share':>9}")
    for name in stages:
        seconds = median(lambda row, name=name: row[name])
        share = median(lambda row, name=name: row[name] / row["wall"])
        print(f"{name:<12}{seconds:>10.3f}{share:>9.1%}")
    print(f"{'whole step':<12}{median(lambda r: r['wall']):>10.3f}{1:>9.1%}\n")
    print(f"rollout             {median(lambda r: r['speed']):8.0f} tokens/s")
    for name, title in {"same": "LLM.generate, same", "default": "LLM.generate, n = G"}.items():
        print(f"{title:<20}{median(lambda r, name=name: r[name]):8.0f} tokens/s")
        ratio = median(lambda r, name=name: r["speed"] / r[name])
        print(f"rollout / that      {ratio:8.2f}   (per step, median)")
    print(f"push and verify     {median(lambda r: r['sync'] / r['wall']):8.1%}   of the step")
    outside = median(lambda r: r["driver"] / r["wall"])
    print(f"outside the actors  {outside:8.1%}   of the step (driver, Ray, waiting for scores)")


if __name__ == "__main__":
    main()
