"""What fp32 gates, router replay and importance sampling do for a tiny MoE policy in bf16.

    python benchmarks/router_replay.py --policy runs/quickstart-seed0/sft [--steps 40] [--seeds 3]
        [--gate fp32 bf16] [--replay compare rollout] [--importance off token] [key.path=value …]

Runs the quickstart's GRPO once per combination and seed, from the same SFT model, in a process each.
``--gate bf16`` is vLLM's default for models that do not ask for more; the trainer's gate is in fp32
always. Prints, per combination, how far engine and trainer were apart (means over steps and seeds)
and the curve of the reward (mean over seeds, in equal parts of the run), and writes all values to
``<folder>/summary.json``. ``--replay compare`` replays nothing and counts where engine and trainer
agree. With ``grpo.minibatches=4`` ``--replay trainer`` has something to replay.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RECIPE = Path("recipes/quickstart/grpo.yaml")
GAPS = {
    "mean |Δ|": "mismatch/logprob_mean",
    "p99 |Δ|": "mismatch/logprob_p99",
    "max |Δ|": "mismatch/logprob_max",
    "KL": "mismatch/kl",
    "agreement": "router/agreement",
    "grad norm": "train/grad_norm",
}
PARTS = 8
"""Points of a reward curve."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--policy", default="runs/quickstart-seed0/sft")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gate", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    replays = ("off", "compare", "rollout", "trainer")
    parser.add_argument("--replay", nargs="+", choices=replays, default=["compare", "rollout"])
    parser.add_argument(
        "--importance", nargs="+", choices=("off", "token", "sequence"), default=["off", "token"]
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/router-replay"))
    parser.add_argument("--run", metavar="GATE", help="internal: one run, its recipe given by overrides")
    args, overrides = parser.parse_known_args()
    if args.run:
        run(args.run, overrides)
        return
    results: dict[str, list[list[dict[str, float]]]] = {}
    seconds = []
    # Seeds outermost: a stopped experiment has compared like with like.
    for seed, gate, replay, importance in itertools.product(
        range(args.seeds), args.gate, args.replay, args.importance
    ):
        name = f"gate {gate}, replay {replay}, importance {importance}"
        folder = args.folder / f"{gate}-{replay}-{importance}-{seed}"
        start = time.perf_counter()
        command = [
            *(sys.executable, __file__, "--run", gate),
            f"policy.path={args.policy}",
            f"grpo.steps={args.steps}",
            f"grpo.replay={replay}",
            f"grpo.importance.level={importance}",
            f"checkpoint.every={args.steps}",
            f"run_dir={folder}",
            f"seed={seed}",
            *overrides,
        ]
        subprocess.run(command, check=True)
        seconds.append(time.perf_counter() - start)
        results.setdefault(name, []).append(read_steps(folder / "metrics.jsonl"))
        (args.folder / "summary.json").write_text(json.dumps(results))
        show(results)
        print(f"{len(seconds)} runs, {statistics.mean(seconds):.0f} s each\n", flush=True)


def run(gate: str, overrides: list[str]) -> None:
    """One GRPO run in this process."""
    import ray

    from align.cluster import rollout_actor, rollout_group
    from align.config.load import load_recipe
    from align.config.recipe import GrpoRecipe
    from align.model.files.load import load_config
    from align.train.grpo.run import run_grpo

    base = rollout_actor.RolloutActor.__ray_metadata__.modified_class

    def with_narrow_gate(policy):
        config = load_config(policy)
        config.moe_router_dtype = "bfloat16"
        return config

    @ray.remote(concurrency_groups=rollout_actor.CALLS)
    class NarrowGateRollout(base):
        """An engine whose gates compute in the type of its weights."""

        def open(self, *args) -> None:
            # Not the module's name: Ray ships the base class, and the names that it uses, by value.
            inspect.unwrap(base.open).__globals__["load_config"] = with_narrow_gate
            base.open(self, *args)
            worker = self.engine.llm.llm_engine.model_executor.driver_worker.worker
            layers = worker.model_runner.get_model().model.layers
            assert {layer.mlp.gate.out_dtype for layer in layers if hasattr(layer.mlp, "gate")} == {None}

    if gate == "bf16":
        rollout_group.RolloutActor = NarrowGateRollout
    run_grpo(load_recipe(str(RECIPE), overrides, kind=GrpoRecipe), file=RECIPE)


def read_steps(file: Path) -> list[dict[str, float]]:
    """The metrics of each training step."""
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return [record for record in records if "reward/mean" in record]


def show(results: dict[str, list[list[dict[str, float]]]]) -> None:
    width = max(map(len, results)) + 2
    print(f"\n{'':<{width}}" + "".join(f"{title:>12}" for title in GAPS))
    for name, runs in results.items():
        cells = []
        for metric in GAPS.values():
            values = [step[metric] for steps in runs for step in steps if metric in step]
            cells.append(f"{statistics.mean(values):>12.5f}" if values else f"{'–':>12}")
        print(f"{name:<{width}}" + "".join(cells))
    print(
        f"\n{'reward':<{width}}" + "".join(f"{f'part {part + 1}':>9}" for part in range(PARTS)) + "   spread"
    )
    for name, runs in results.items():
        curves = [reward_curve(steps) for steps in runs]
        means = [statistics.mean(values) for values in zip(*curves, strict=True)]
        last = [curve[-1] for curve in curves]
        print(
            f"{name:<{width}}"
            + "".join(f"{value:>9.3f}" for value in means)
            + f"{max(last) - min(last):>9.3f}"
        )


def reward_curve(steps: list[dict[str, float]]) -> list[float]:
    """Mean reward of each of at most PARTS equal parts of the run."""
    parts = min(PARTS, len(steps))
    bounds = [part * len(steps) // parts for part in range(parts + 1)]
    rewards = [step["reward/mean"] for step in steps]
    return [statistics.mean(rewards[a:b]) for a, b in itertools.pairwise(bounds)]


if __name__ == "__main__":
    main()
