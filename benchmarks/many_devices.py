"""Several ranks and engines on the cores of one: what sharing them out costs on one machine.

1. One GRPO update (reference pass included): two ranks of one thread beside one rank of two.
2. Rollouts: two engines of one thread beside one of two.
3. Peak resident memory of a rank, the imports that every process has taken off.
4. A push from two ranks to two engines beside the gathering of the same weights alone.

Both sides take turns in one run, on the same prompts and completions; medians and ratios are printed.

    python benchmarks/many_devices.py --model models/smollm2-135m-instruct
    python benchmarks/many_devices.py --model recipes/quickstart/policy --random --groups 16 --completions 16
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import ray
import torch

from align.algo.assemble import assemble
from align.cluster.placement import Placement, cluster
from align.cluster.policy_group import PolicyGroup
from align.cluster.remote import wait_all
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.config.run import ClusterConfig
from align.model.files.load import load_tokenizer
from align.types import Group, Prompt

PROBE = list(range(5, 69))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="models/smollm2-135m-instruct")
    parser.add_argument("--random", action="store_true", help="fresh weights from the model's config.json")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    recipe = recipe_of(args)
    words = len(load_tokenizer(recipe.policy))
    draw = torch.Generator().manual_seed(0)
    prompts = [
        Prompt(f"p/{i}", (), torch.randint(5, words, (args.prompt,), generator=draw).tolist())
        for i in range(args.groups)
    ]
    with cluster(ClusterConfig(device="cpu", processes=2), engines=2) as two:
        both = two.with_threads(2)
        one = replace(both, trainers=both.trainers[:1], engines=both.engines[:1])
        groups = rollouts(recipe, one, two.with_threads(1), prompts, args)
        updates(recipe, one, two.with_threads(1), groups, args)
        pushes(recipe, two.with_threads(1), args)


def recipe_of(args: argparse.Namespace) -> GrpoRecipe:
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "many",
            "policy": {
                "path": args.model,
                "init": "random" if args.random else "pretrained",
                "compile": False,  # sharded policies are not compiled
                "experts": "eager",
            },
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            "grpo": {"group_size": args.completions, "max_prompt_tokens": args.prompt, "beta": 0.04},
            "optim": {"lr": 1e-6, "warmup_steps": 0},
            "rollout": {
                "max_new_tokens": args.tokens,
                "kv_cache_gib": 1,
                "max_num_seqs": args.groups * args.completions,
            },
        }
    )


def rollouts(
    recipe: GrpoRecipe, one: Placement, two: Placement, prompts: list[Prompt], args: argparse.Namespace
) -> list[Group]:
    """Print tokens a second of both; the groups of the last round."""
    policy = PolicyGroup.start(one, recipe, None)
    sides = {"1 engine × 2 threads": one, "2 engines × 1 thread": two}
    rollouts = {name: RolloutGroup.start(place, recipe, args.model) for name, place in sides.items()}
    for each in rollouts.values():
        WeightSync(policy, each, recipe, PROBE).push()
    speed: dict[str, list[float]] = {name: [] for name in sides}
    for step in range(args.rounds + 1):
        for name in sorted(sides, reverse=bool(step % 2)):
            start = time.perf_counter()
            groups = list(rollouts[name].sample(prompts, args.completions, step))
            seconds = time.perf_counter() - start
            tokens = sum(len(each.token_ids) for group in groups for each in group.completions)
            speed[name] += [tokens / seconds] if step else []  # the first warms up
    show("tokens a second", speed)
    for actor in [*policy.actors, *(actor for each in rollouts.values() for actor in each.actors)]:
        ray.kill(actor)
    return groups


def updates(
    recipe: GrpoRecipe, one: Placement, two: Placement, groups: list[Group], args: argparse.Namespace
) -> None:
    """Print updates a second and peak memory of both."""
    advantages = [(-1.0) ** i for i in range(len(groups) * args.completions)]
    (batch,) = assemble(groups, advantages, recipe.grpo, args.tokens)
    sides = {"1 rank × 2 threads": one, "2 ranks × 1 thread": two}
    speed: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, list[float]] = {}
    policies: dict[str, PolicyGroup] = {}
    for name, place in sides.items():
        policies[name] = PolicyGroup.start(place, recipe, None)
        asked = [actor.__ray_call__.remote(imported) for actor in policies[name].actors]
        imports = max(wait_all(asked, name))
        batch.ref_logprobs = policies[name].ref_logprobs(batch)
        found = policies[name].update(batch)
        memory[name] = [found["memory/trainer_gib"] - imports]
    for turn in range(args.rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            start = time.perf_counter()
            policies[name].ref_logprobs(batch)
            policies[name].update(batch)
            speed[name].append(1 / (time.perf_counter() - start))
    show("updates a second", speed)
    show("peak of a rank beyond its imports, GiB", memory)


def pushes(recipe: GrpoRecipe, two: Placement, args: argparse.Namespace) -> None:
    """Print seconds of a push, verified and not, and of gathering what it carries."""
    policy, rollout = PolicyGroup.start(two, recipe, None), RolloutGroup.start(two, recipe, args.model)
    sync = WeightSync(policy, rollout, recipe, PROBE)
    sync.push()
    seconds: dict[str, list[float]] = {"gather alone": [], "push": []}
    probed: list[float] = []
    for _ in range(args.rounds):
        start = time.perf_counter()
        wait_all([actor.__ray_call__.remote(gather) for actor in policy.actors], "gather")
        seconds["gather alone"].append(time.perf_counter() - start)
        start = time.perf_counter()
        sync._travel()
        seconds["push"].append(time.perf_counter() - start)
        start = time.perf_counter()
        sync._compare()
        probed.append(time.perf_counter() - start)
    show("seconds", seconds)
    print(f"its verification by a probe: {statistics.median(probed):.2f} s", flush=True)


def gather(actor: Any) -> None:
    """Gather the policy's weights and drop them."""
    for _ in actor.policy.weights():
        pass


def imported(actor: Any) -> float:
    """GiB that a fresh process of this kind has, without a model."""
    import subprocess
    import sys

    told = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    code = f"import align.cluster.policy_actor, resource; {told}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) / 2**20


def show(what: str, found: dict[str, list[float]]) -> None:
    """Medians, and the second beside the first."""
    middle = {name: statistics.median(values) for name, values in found.items()}
    first, second = middle.values()
    told = ", ".join(f"{name} {value:.3g}" for name, value in middle.items())
    rounds = len(next(iter(found.values())))
    print(f"{what}: {told}; ratio {second / first:.2f} ({rounds} rounds)", flush=True)


if __name__ == "__main__":
    main()
