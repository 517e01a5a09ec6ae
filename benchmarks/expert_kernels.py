"""Which kernel of the routed experts is faster in the trainer: `policy.experts`.

    python benchmarks/expert_kernels.py [--config recipes/quickstart/policy] [--prompts 16] [--group 16]
        [--prompt-tokens 30] [--tokens 24] [--repeats 7] [--threads N]

One update of a fresh MoE policy (loss, backward, optimiser), bf16 weights, on the same made-up batch, each
kernel in turn in one process; one turn each warms up. `--config` names a directory with a config.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from side_by_side import table
from transformers.utils.logging import disable_progress_bar

from align.algo.reduce import token_weights
from align.config.load import load_recipe
from align.config.recipe import GrpoRecipe
from align.model.policy import PolicyModel
from align.types import TrainBatch

KERNELS = ("grouped_mm", "eager")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", default="recipes/quickstart/policy")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=24, help="of each completion")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        policies = {
            kernel: PolicyModel(recipe(args, kernel, Path(folder)), device="cpu") for kernel in KERNELS
        }
    torch.set_num_threads(args.threads)
    seconds: dict[str, list[float]] = {kernel: [] for kernel in KERNELS}
    for repeat in range(args.repeats + 1):
        for kernel in KERNELS if repeat % 2 == 0 else reversed(KERNELS):
            start = time.perf_counter()
            policies[kernel].update(batch(args))
            seconds[kernel].append(time.perf_counter() - start)
    timed = {kernel: values[1:] for kernel, values in seconds.items()}
    ratio = statistics.median(b / a for a, b in zip(*timed.values(), strict=True))
    print(f"{args.config}: {args.prompts} × {args.group} completions of {args.tokens} tokens")
    print(f"medians of {args.repeats} updates, {args.threads} threads\n")
    rows = [(kernel, f"{statistics.median(values):.3f}") for kernel, values in timed.items()]
    print(table(("kernel", "seconds"), rows))
    print(f"\n{KERNELS[1]} / {KERNELS[0]}: {ratio:.2f}")


def recipe(args: argparse.Namespace, kernel: str, folder: Path) -> GrpoRecipe:
    """What the policy reads; the rest is there because a recipe needs it."""
    file = folder / f"{kernel}.json"
    values = {
        "kind": "grpo",
        "name": "expert-kernels",
        "policy": {"path": str(Path(args.config).resolve()), "init": "random", "experts": kernel},
        "data": {"path": "prompts.jsonl"},
        "rewards": {"terms": {"length": {"function": "length"}}},
        "grpo": {"beta": 0.0, "prompts_per_step": args.prompts, "group_size": args.group},
    }
    file.write_text(json.dumps(values))
    return load_recipe(file, [], kind=GrpoRecipe)


def batch(args: argparse.Namespace) -> TrainBatch:
    """The same made-up tokens each time."""
    source = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [source.randrange(100) for _ in range(count)]

    prompts = [tokens(args.prompt_tokens) for _ in range(args.prompts)]
    count = args.prompts * args.group
    return TrainBatch(
        prompt_ids=[f"p/{place}" for place in range(args.prompts) for _ in range(args.group)],
        prompt_tokens=[prompt for prompt in prompts for _ in range(args.group)],
        completion_tokens=[tokens(args.tokens) for _ in range(count)],
        rollout_logprobs=[[-4.0] * args.tokens for _ in range(count)],
        advantages=[source.gauss(0, 1) for _ in range(count)],
        token_weights=token_weights([args.tokens] * count, "sequence_mean", args.tokens),
    )


if __name__ == "__main__":
    main()
