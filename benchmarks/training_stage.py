"""The training stage alone: TRL's loss and backward, and align's update, on the same completions.

    python benchmarks/training_stage.py --data gsm8k/train.jsonl [--prompts 4] [--group 8] [--tokens 64]
        [--repeats 5] [--model DIR] [key=value …]

One process, bf16 weights on both sides, turns in alternating order, one turn each to warm up. Every
completion has the same length, so TRL pads nothing but prompts. TRL gets the batch as its own
`_generate_and_score_completions` would hand it over, in micro-batches of `--trl-batch`; `TRL plain` is
without gradient checkpointing, `TRL default` with it. Both compute the same objective; the norms of the
gradients show it.

GFLOP/s count 6 per weight and token that is computed: the layers' weights for every token that goes through
them, the output head's for the completion tokens alone. Attention and anything computed twice are extra
and do not count. The peak is the best bf16 matrix product, measured in every repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from side_by_side import table
from training_stage_trl import BETA, Fed, Turn, timed, trl_batches, trl_trainer, trl_turn
from transformers.utils.logging import disable_progress_bar

from align.algo.reduce import token_weights
from align.cluster.memory import keep_freed
from align.config.load import load_recipe
from align.config.recipe import GrpoRecipe
from align.model.policy import PolicyModel
from align.types import TrainBatch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="jsonl with the columns question and answer")
    parser.add_argument("--model", default="models/smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="of each completion")
    parser.add_argument("--trl-batch", type=int, default=8, help="TRL's per_device_train_batch_size")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[512, 1024, 1536, 2048], help="of the product"
    )
    args, args.overrides = parser.parse_known_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM")  # which is not used here
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Build both sides, let them take turns, print."""
    keep_freed()  # as the training actor does; here TRL has it too
    policy = PolicyModel(recipe(args, folder), device="cpu")
    batch = completions(args, policy.tokenizer)
    trainer = trl_trainer(args, folder, policy.tokenizer)
    prepared = trl_batches(args, batch, policy.tokenizer.pad_token_id)
    torch.set_num_threads(args.threads)  # loading libraries may have changed it

    sides = {
        "TRL plain": lambda: trl_turn(trainer, prepared, batch, checkpointing=False),
        "TRL default": lambda: trl_turn(trainer, prepared, batch, checkpointing=True),
        "align": lambda: align_turn(policy, batch),
    }
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    peaks: list[float] = []
    for repeat in range(args.repeats + 1):
        peaks.append(matrix_peak(args.sizes))
        for name in sides if repeat % 2 == 0 else reversed(sides):
            turns[name].append(sides[name]())
    show(args, {name: each[1:] for name, each in turns.items()}, peaks[1:], flop(policy.model, batch))


def recipe(args: argparse.Namespace, folder: Path) -> GrpoRecipe:
    """What the policy reads; the rest is there because a recipe needs it."""
    file = folder / "recipe.json"
    values = {
        "kind": "grpo",
        "name": "training-stage",
        "policy": {"path": args.model, "dtype": "bfloat16"},
        "data": {"path": args.data},
        "rewards": {"terms": {"length": {"function": "length"}}},
        "grpo": {
            "beta": BETA,
            "prompts_per_step": args.prompts,
            "group_size": args.group,
            "micro_batch_tokens": 1536,
        },
        "optim": {"lr": 1e-6},
    }
    file.write_text(json.dumps(values))
    return load_recipe(file, args.overrides, kind=GrpoRecipe)


def completions(args: argparse.Namespace, tokenizer: Any) -> TrainBatch:
    """G completions of equal length for each question: pieces of the solutions, from other places."""
    rows = [json.loads(line) for line in Path(args.data).read_text(encoding="utf-8").splitlines()]
    source = random.Random(0)
    rows = source.sample(rows, args.prompts)
    text = tokenizer(" ".join(row["answer"] for row in rows))["input_ids"]
    while len(text) < 2 * args.tokens:
        text = text + text
    count = args.prompts * args.group
    prompts = [
        list(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row["question"]}], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        )
        for row in rows
    ]
    starts = [source.randrange(len(text) - args.tokens) for _ in range(count)]
    answers = [text[start : start + args.tokens] for start in starts]
    advantages = [source.gauss(0, 1) for _ in range(count)]
    return TrainBatch(
        prompt_ids=[f"gsm8k/{place}" for place in range(args.prompts) for _ in range(args.group)],
        prompt_tokens=[prompt for prompt in prompts for _ in range(args.group)],
        completion_tokens=answers,
        rollout_logprobs=[[0.0] * args.tokens for _ in range(count)],  # replaced by the policy's own
        advantages=advantages,
        token_weights=token_weights([args.tokens] * count, "sequence_mean", args.tokens),
    )


# --- align --------------------------------------------------------------------------------------


def align_turn(policy: PolicyModel, batch: TrainBatch) -> Turn:
    """Reference pass and update, the optimiser's part apart."""
    spent: Turn = {}
    fed = Fed(policy.model)
    with timed(spent, "reference"):
        batch.ref_logprobs = policy.ref_logprobs(batch)
    if not any(batch.rollout_logprobs[0]):
        batch.rollout_logprobs = policy.logprobs(batch)
    step = policy.optimizer.step

    def timed_step(lr: float) -> float:
        with timed(spent, "optimizer"):
            return step(lr)

    policy.optimizer.step = timed_step  # type: ignore[method-assign]
    with fed, timed(spent, "whole"):
        metrics = policy.update(batch)
    policy.optimizer.step = step  # type: ignore[method-assign]
    spent["training"] = spent.pop("whole") - spent["optimizer"]
    return spent | {"tokens": fed.tokens, "norm": metrics["train/grad_norm"]}


def flop(model: Any, batch: TrainBatch) -> tuple[float, float]:
    """(per token through the layers, of the head for the whole batch), forward and backward."""
    head = model.get_output_embeddings().weight.numel()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    layers = sum(p.numel() for p in model.parameters()) - head * (1 if tied else 2)
    return 6.0 * layers, 6.0 * head * sum(map(len, batch.completion_tokens))


def matrix_peak(sizes: Sequence[int]) -> float:
    """Best FLOP/s of a square bf16 product, three tries of each size."""
    best = 0.0
    for size in sizes:
        left, right = (torch.randn(size, size).bfloat16() for _ in range(2))
        left @ right
        for _ in range(3):
            start = time.perf_counter()
            left @ right
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def show(
    args: argparse.Namespace, turns: dict[str, list[Turn]], peaks: Sequence[float], work: tuple[float, float]
) -> None:
    """Print medians."""

    def column(name: str, key: str) -> list[float]:
        return [turn[key] for turn in turns[name]]

    def speed(name: str) -> list[float]:
        layers, head = work
        return [(layers * turn["tokens"] + head) / turn["training"] for turn in turns[name]]

    print(f"{args.model}: {args.prompts} prompts × {args.group} completions × {args.tokens} tokens")
    print(f"medians of {args.repeats} turns, {args.threads} threads, β = {BETA:g}\n")
    others = [name for name in turns if name != "align"]
    rows = []
    for label, key in (
        ("loss and backward, s", "training"),
        ("reference pass, s", "reference"),
        ("clipping and optimiser, s", "optimizer"),
    ):
        ratios = [
            statistics.median(a / b for a, b in zip(column(name, key), column("align", key), strict=True))
            for name in others
        ]
        rows.append(
            (
                label,
                *(f"{statistics.median(column(name, key)):.3f}" for name in turns),
                *(f"{r:.2f}" for r in ratios),
            )
        )
    blank = [""] * len(others)
    rows += [
        ("tokens through the layers", *(f"{column(name, 'tokens')[0]:.0f}" for name in turns), *blank),
        ("gradient norm, first turn", *(f"{column(name, 'norm')[0]:.4g}" for name in turns), *blank),
        ("GFLOP/s", *(f"{statistics.median(speed(name)) / 1e9:.0f}" for name in turns), *blank),
        (
            "share of the bf16 peak",
            *(
                f"{statistics.median(s / p for s, p in zip(speed(name), peaks, strict=True)):.2f}"
                for name in turns
            ),
            *blank,
        ),
    ]
    print(table(("", *turns, *(f"{name} / align" for name in others)), rows))
    print(f"\nbf16 matrix product at its best: {statistics.median(peaks) / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
