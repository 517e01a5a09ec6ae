"""What the driver of a GRPO step has to do as engines become many.

The loop, the rollout group with its streams, the reward pool with its worker processes, the batch and its
packing, and the reports are those of a run. Engines are played in one process and in virtual time: each
decodes so many sequences at once, a token takes so long, and lengths are drawn from completions that a real
run recorded. The trainer is one process that packs as each of many ranks would. Printed per number of
engines: seconds of processor time that the driver's process spent, by stage, and their share of the step in
virtual time; and what Ray's own processes took beside it.

    python benchmarks/driver_scale.py
    python benchmarks/driver_scale.py --engines 1 10 100 1000 --group 16 --rollouts runs/smollm2-gsm8k-grpo
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow.parquet as pq
import ray
from played import WORDS, NoPush, OneOfMany, PlayedEngines, PlayedPolicy, PlayedRank

from align.cluster.memory import seldom_collected
from align.cluster.placement import cluster
from align.cluster.reward_pool import RewardPool
from align.cluster.rollout_group import RolloutGroup
from align.config.recipe import GrpoRecipe
from align.config.run import ClusterConfig
from align.dataset.prompts import PromptSampler
from align.report.reporter import Reporter
from align.report.rollouts import rollout_files
from align.report.run_directory import RunDirectory
from align.train.grpo.loop import grpo
from align.train.grpo.parts import Parts
from align.train.grpo.prepared import predicates
from align.types import Prompt, StepStats

# fmt: off
RECORDED = [
    22, 29, 40, 43, 54, 59, 71, 72, 81, 101, 104, 111, 113, 115, 117, 127, 131, 137, 139, 139, 140, 141, 143,
    145, 158,
] + [160] * 103
# fmt: on
"""Tokens of each completion of two steps of ``recipes/smollm2_gsm8k/grpo.yaml``, sorted; 160 is its limit."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--sequences", type=int, default=64, help="that an engine decodes at once")
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=1024, help="of the longest completion")
    parser.add_argument("--step", type=float, default=60.0, help="seconds that the longest completion takes")
    parser.add_argument("--ranks", type=int, default=0, help="that train; default: one for two engines")
    parser.add_argument("--steps", type=int, default=3, help="the first is not counted")
    parser.add_argument(
        "--rollouts", type=Path, help="run directory whose completions' lengths are drawn from"
    )
    args = parser.parse_args()
    lengths = recorded(args.rollouts) if args.rollouts else RECORDED
    lengths = [max(1, each * args.tokens // max(lengths)) for each in lengths]
    rows = {}
    logging.getLogger("align.cluster").setLevel(logging.ERROR)
    with cluster(ClusterConfig(device="cpu"), engines=1):
        for engines in args.engines:
            rows[engines] = measure(args, engines, lengths)
            show(rows[engines], engines, args)
    exponents(rows)


def recorded(run: Path) -> list[int]:
    """Tokens of every completion that a run has kept."""
    return [
        tokens
        for _, file in rollout_files(run / "rollouts")
        for tokens in pq.read_table(file, columns=["tokens"])["tokens"].to_pylist()
    ]


class Work:
    """Seconds of this process' processor time by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - start

    def take(self) -> dict[str, float]:
        spent, self.spent = self.spent, {}
        return spent


def recipe_of(args: argparse.Namespace, engines: int, folder: str) -> GrpoRecipe:
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "many",
            "policy": {"path": "none"},
            "data": {"path": "none"},
            "rewards": {
                "terms": {
                    "correct": {"function": "exact_answer"},
                    "format": {"function": "format", "args": {"pattern": "gsm8k"}, "weight": 0.2},
                },
                "workers": 2,
            },
            "grpo": {
                "steps": args.steps,
                "prompts_per_step": max(1, engines * args.sequences // args.group),
                "group_size": args.group,
                "beta": 0.04,
            },
            "optim": {"lr": 1e-6},
            "rollout": {"max_new_tokens": args.tokens, "max_num_seqs": args.sequences},
            "report": {"console": False, "tensorboard": False},
            "run_dir": folder,
        }
    )


def measure(args: argparse.Namespace, engines: int, lengths: list[int]) -> list[dict[str, float]]:
    """A row a step: seconds by stage, ``virtual``, ``ray`` and ``packing``."""
    ranks = args.ranks or max(1, engines // 2)
    played = PlayedEngines.options(num_cpus=0, max_concurrency=2 * engines + 8).remote(
        lengths, args.sequences, args.step / args.tokens
    )
    rank = PlayedRank.options(num_cpus=0).remote(ranks, 16 * args.tokens)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(args, engines, f"{folder}/run")
        count = recipe.grpo.prompts_per_step
        prompts = [
            Prompt(
                f"p/{i}", ({"role": "user", "content": WORDS * 4},), list(range(100)), {"answer": str(i % 9)}
            )
            for i in range(count)
        ]
        run = RunDirectory.create(Path(f"{folder}/run"), recipe.model_dump(mode="json"))
        pool = RewardPool(
            recipe.rewards,
            seed=0,
            compile_expression=predicates(Path("driver_scale.py")),
            max_new_tokens=args.tokens,
            run_dir=run.path,
        )
        pool.smoke(prompts[:1])
        rollout = RolloutGroup(None, recipe)  # type: ignore[arg-type]  # nothing is placed
        rollout.actors = [OneOfMany(played, number) for number in range(engines)]
        work = Work()

        def mark(step: int) -> None:
            prepare(step + 1)

        def prepare(step: int) -> None:
            nonlocal before
            if step > 1:
                rows.append({"virtual": ray.get(played.seconds.remote())})
            ray.get(played.prepare.remote(engines, count, args.group))
            if step == 1:
                before = ray_seconds()

        before = 0.0
        prepare(1)
        parts = Parts(
            PromptSampler(
                prompts, recipe.data.model_copy(update={"parts": {"": SimpleNamespace(weight=None)}}), seed=0
            ),
            PlayedPolicy(rank),
            rollout,
            pool,
            NoPush(),  # type: ignore[arg-type]
            work,  # type: ignore[arg-type]
            lambda ids: "",
            mark,
        )
        reporter = Reporter(run, recipe.report, args.steps)

        def after(stats: StepStats) -> None:
            nonlocal before
            with work.stage("report"):
                reporter.step(stats)
            now = ray_seconds()
            rows[-1] |= (
                dict(stats.seconds)
                | work.take()
                | {"ray": now - before, "packing": ray.get(rank.last.remote())}
            )
            before = now

        with seldom_collected():
            for _ in grpo(recipe, parts, 0, after):
                pass
        pool.close()
    for actor in (played, rank):
        ray.kill(actor)
    return rows[1:] or rows


def ray_seconds() -> float:
    """Processor time of Ray's own processes on this machine."""
    total = 0.0
    for process in psutil.process_iter(["name", "cpu_times"]):
        if process.info["name"] in ("raylet", "gcs_server"):
            times = process.info["cpu_times"]
            total += times.user + times.system
    return total


STAGES = ("data", "rollout", "score", "reference", "update", "sync", "report")


def show(rows: list[dict[str, float]], engines: int, args: argparse.Namespace) -> None:
    def median(name: str) -> float:
        return statistics.median(row.get(name, 0.0) for row in rows)

    driver, virtual = sum(median(name) for name in STAGES), median("virtual")
    peak = psutil.Process(os.getpid()).memory_info().rss / 2**30
    stages = ", ".join(f"{name} {median(name):.2f}" for name in STAGES)
    print(
        f"{engines} engines, {engines * args.sequences} completions: driver {driver:.2f} s of {virtual:.0f} "
        f"({driver / virtual:.2%}); {stages}; packing of a rank {median('packing'):.2f}; "
        f"Ray {median('ray'):.2f}; driver holds {peak:.1f} GiB",
        flush=True,
    )


def exponents(rows: dict[int, list[dict[str, float]]]) -> None:
    """How each stage grows from the second largest number of engines to the largest."""
    sizes = sorted(rows)[-2:]
    if len(sizes) < 2:
        return
    few, many = (
        {name: statistics.median(row.get(name, 0.0) for row in rows[size]) for name in (*STAGES, "packing")}
        for size in sizes
    )
    grown = {
        name: math.log(many[name] / few[name]) / math.log(sizes[1] / sizes[0])
        for name in many
        if few[name] > 1e-3 and many[name] > 1e-3
    }
    print(
        f"exponents {sizes[0]} → {sizes[1]}: "
        + ", ".join(f"{name} {each:.2f}" for name, each in grown.items())
    )


if __name__ == "__main__":
    main()
