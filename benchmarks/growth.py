"""How seconds and peak memory of each stage of a GRPO step grow with what is asked of it.

The actors are those of a run: engines, a training rank, reward workers. The policy has the quickstart's
shape, with fresh weights, so that completions are about as long as they may be. One thing is varied at a
time, over doublings, and everything else stays as small as ``Setting`` has it. Printed for each: a table, and
the exponent of growth between the two largest values (1: as fast as the thing itself) and over all.

    python benchmarks/growth.py
    python benchmarks/growth.py --vary tokens experts --repeats 5
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch

from align.algo.assemble import assemble
from align.cluster.placement import Placement, cluster
from align.cluster.policy_group import PolicyGroup
from align.cluster.reward_pool import RewardPool
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.config.run import ClusterConfig
from align.model.files.load import load_tokenizer
from align.train.grpo.prepared import predicates
from align.types import Prompt

QUICKSTART = Path(__file__).parents[1] / "recipes/quickstart/policy"
STAGES = ("rollout", "score", "reference", "update", "push")
LONGEST = 1024


@dataclass(frozen=True)
class Setting:
    """One point; these values stay while another one varies."""

    completions: int = 64
    tokens: int = 64
    prompt: int = 64
    experts: int = 8
    terms: int = 2
    engines: int = 1


VARIED = {
    "completions": (16, 32, 64, 128, 256, 512),
    "tokens": (64, 128, 256, 512, 1024),
    "prompt": (64, 128, 256, 512, 1024),
    "experts": (8, 16, 32, 64),
    "terms": (2, 4, 8, 16),
    "engines": (1, 2),
}
GROUP = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vary", nargs="+", choices=list(VARIED), default=list(VARIED))
    parser.add_argument(
        "--repeats", type=int, default=3, help="steps of which the median is shown; one more warms up"
    )
    parser.add_argument("--largest", type=int, help="leave out values above this, for a quick look")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in args.vary:
            values = [value for value in VARIED[name] if value <= (args.largest or value)]
            rows: dict[int, dict[str, float]] = {}
            for value in values:
                rows[value] = measured(replace(Setting(), **{name: value}), Path(folder), args)
                show(name, value, rows)
            exponents(rows)


def measured(setting: Setting, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Seconds by stage, and ``… GiB`` of trainer, engine and driver's workers."""
    with (
        cluster(ClusterConfig(device="cpu"), engines=setting.engines) as placement,
        job(setting, placement, folder) as step,
    ):
        step(0)
        rows = [step(number + 1) for number in range(args.repeats)]
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


@contextmanager
def job(setting: Setting, placement: Placement, folder: Path) -> Iterator[Callable[[int], dict[str, float]]]:
    """A step of the setting, to be called any number of times."""
    recipe = recipe_of(setting, model(setting.experts, folder))
    pool = RewardPool(
        recipe.rewards,
        seed=0,
        compile_expression=predicates(Path(__file__)),
        max_new_tokens=setting.tokens,
        run_dir=folder,
    )
    prompts = prompts_of(setting, recipe)
    pool.smoke(prompts[:1])
    policy = PolicyGroup.start(placement, recipe, None)
    rollout = RolloutGroup.start(placement.with_threads(1), recipe, recipe.policy.path)
    sync = WeightSync(policy, rollout, recipe, prompts[0].token_ids[:8] * 8)
    sync.push()

    def step(number: int) -> dict[str, float]:
        policy.peaks_gib(), rollout.peaks_gib()
        seconds: dict[str, float] = {}
        groups = timed(seconds, "rollout", lambda: list(rollout.sample(prompts, GROUP, number)))

        def score() -> None:
            for group in groups:
                pool.submit(group)
            pool.collect()

        timed(seconds, "score", score)
        count = len(groups) * GROUP
        (batch,) = assemble(groups, [(-1.0) ** i for i in range(count)], recipe.grpo, setting.tokens)
        batch.ref_logprobs = timed(seconds, "reference", lambda: policy.ref_logprobs(batch))
        trainer = policy.peaks_gib()[0]
        timed(seconds, "update", lambda: policy.update(batch))
        update = policy.peaks_gib()[0]
        timed(seconds, "push", sync.push)
        return seconds | {
            "reference GiB": trainer,
            "update GiB": update,
            "engine GiB": max(rollout.peaks_gib()),
            "tokens": sum(len(each.token_ids) for group in groups for each in group.completions) / count,
        }

    try:
        yield step
    finally:
        pool.close()
        for actor in [*policy.actors, *rollout.actors]:
            ray.kill(actor)


def timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    found = work()
    seconds[name] = time.perf_counter() - start
    return found


def model(experts: int, folder: Path) -> Path:
    """The quickstart's configuration with so many routed experts, and room for the longest rows."""
    made = folder / f"experts-{experts}"
    if not made.exists():
        load_tokenizer(recipe_of(Setting(), QUICKSTART).policy).save_pretrained(made)
        config = json.loads((QUICKSTART / "config.json").read_text())
        config |= {"n_routed_experts": experts, "max_position_embeddings": 4 * LONGEST}
        (made / "config.json").write_text(json.dumps(config))
    return made


def recipe_of(setting: Setting, path: Path) -> GrpoRecipe:
    terms = {
        f"term_{number}": {
            "function": "exact_answer" if number % 2 else "format",
            "args": {} if number % 2 else {"pattern": "gsm8k"},
        }
        for number in range(setting.terms)
    }
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "growth",
            "policy": {"path": str(path), "init": "random", "experts": "eager"},
            "data": {"path": "none"},
            "rewards": {"terms": terms},
            "grpo": {"group_size": GROUP, "max_prompt_tokens": setting.prompt, "beta": 0.04},
            "optim": {"lr": 1e-6, "warmup_steps": 0},
            "rollout": {
                "max_new_tokens": setting.tokens,
                "kv_cache_gib": 1,
                "max_num_seqs": setting.completions,
                "engines": setting.engines,
            },
            "sync": {"tolerance": 10},  # fresh weights of many experts route at random
        }
    )


def prompts_of(setting: Setting, recipe: GrpoRecipe) -> list[Prompt]:
    words = len(load_tokenizer(recipe.policy))
    draw = torch.Generator().manual_seed(0)
    text = ({"role": "user", "content": "How many apples are left?"},)
    return [
        Prompt(
            f"p/{i}",
            text,
            torch.randint(5, words, (setting.prompt,), generator=draw).tolist(),
            {"answer": "7"},
        )
        for i in range(setting.completions // GROUP)
    ]


def show(name: str, value: int, rows: dict[int, dict[str, float]]) -> None:
    """A line of the table, with its head above the first."""
    row = rows[value]
    if len(rows) == 1:
        print(f"\n{name:>12}" + "".join(f"{key:>15}" for key in row))
    print(f"{value:>12}" + "".join(f"{each:>15.3f}" for each in row.values()), flush=True)


def exponents(rows: dict[int, dict[str, float]]) -> None:
    """The lines below the table."""
    sizes = sorted(rows)
    for what, few in (("last", sizes[-2]), ("all", sizes[0])) if len(sizes) > 1 else ():
        least, most = rows[few], rows[sizes[-1]]
        grown = [exponent(least[key], most[key], sizes[-1] / few) for key in most]
        print(f"{'^ ' + what:>12}" + "".join(f"{each:>15.2f}" for each in grown), flush=True)


def exponent(few: float, many: float, times: float) -> float:
    """p of many = few · timesᵖ."""
    return math.log(many / few) / math.log(times) if few > 0 and many > 0 else 0.0


if __name__ == "__main__":
    main()
