"""Supervised fine-tuning: TRL's SFTTrainer with its defaults, and align, on the same conversations.

    python benchmarks/sft_vs_trl.py --data dolly_1k/dolly_sample.csv rasbt_instruct/instruction-data.json
        [--trl default] [--rounds 2] [--steps 12] [--model DIR] [key=value …]

Both take turns, each alone in a process, `rounds` times: a step to warm up, `steps` that are timed, and
one more under watch of the memory. Both train on the same tokens of the same rows in the same order, with
the same labels, learning rate, AdamW constants and clipping, so the losses must agree but for rounding.
TRL's defaults keep fp32 weights under bf16 autocast, with gradient checkpointing; `plain` is what a user
may set instead: bf16 weights, no gradient checkpointing. Tokens are those that are not padding.

The files have the columns instruction, context or input, and response or output. `key=value` overrides
align's recipe.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from side_by_side import Block, against_trl, align_recipe, done, median, table, trl_parser


def main() -> None:
    parser = trl_parser(__doc__ or "", "rows", ("default", "plain"), steps=12)
    parser.set_defaults(trl=["default"])
    parser.add_argument("--data", nargs="+", help="files of the mixture")
    parser.add_argument("--batch", type=int, default=8, help="conversations per step (8 is TRL's default)")
    args, args.overrides = parser.parse_known_args()
    if not args.data:
        parser.error("--data is needed")
    if args.job:
        {"rows": write_rows, "align": run_align}.get(args.job, run_trl)(args)
    else:
        show(args, against_trl(__file__, args, "rows", recipe(args)))


def recipe(args: argparse.Namespace) -> dict[str, Any]:
    """align's recipe, with TRL's defaults where they decide the loss."""
    context = "(context if context is defined else input)"
    columns = {
        "prompt": f"instruction ~ ('\\n\\n' ~ {context} if {context} else '')",
        "completion": "response if response is defined else output",
    }
    parts = {f"part{place}": {"path": path, "columns": columns} for place, path in enumerate(args.data)}
    return {
        "kind": "sft",
        "name": "side-by-side",
        "policy": {"path": args.model, "dtype": "bfloat16"},
        "data": {"parts": parts},
        "sft": {
            "max_steps": args.steps + 2,
            "batch_size": args.batch,
            "max_length": 1024,
            "overlong": "truncate",
        },
        "optim": {"lr": 2e-5, "schedule": "linear", "warmup_steps": 0, "betas": [0.9, 0.999]},
        "checkpoint": {"every": args.steps + 2},
        "report": {"console": False},
    }


def write_rows(args: argparse.Namespace) -> None:
    """The tokens and labels of all steps, in align's order."""
    from align.config.recipe import SftRecipe
    from align.train.sft.data import prepare

    loaded, file = align_recipe(args, SftRecipe, "sft.packing=false")
    rows = prepare(loaded, file=file).rows
    with (args.folder / "rows.jsonl").open("w") as output:
        for row in rows:
            kept = {key: [int(value) for value in row[key]] for key in ("input_ids", "assistant_masks")}
            output.write(json.dumps(kept) + "\n")


def run_align(args: argparse.Namespace) -> None:
    """``align sft`` on the recipe."""
    from align.config.recipe import SftRecipe
    from align.report.reporter import Reporter
    from align.train.sft.run import run_sft

    report = Reporter.step

    def step(self: Reporter, stats: Any) -> Any:
        metrics = report(self, stats)
        names = ("tokens", "trained_tokens", "loss", "padding_share")
        done(**{name: float(stats.metrics[f"train/{name}"]) for name in names})
        return metrics

    Reporter.step = step
    loaded, file = align_recipe(args, SftRecipe)
    run_sft(loaded, file=file)


def run_trl(args: argparse.Namespace) -> None:
    """TRL's trainer on the same rows."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    now = SimpleNamespace(told={})

    class Counted(SFTTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            mask = inputs["attention_mask"]
            now.told["tokens"] = int(mask.sum())
            now.told["trained_tokens"] = int((inputs["labels"] != -100).sum())
            now.told["padding_share"] = 1 - int(mask.sum()) / mask.numel()
            loss = super().training_step(model, inputs, num_items_in_batch)
            now.told["loss"] = float(loss)
            return loss

    class Told(TrainerCallback):
        def on_step_end(self, *rest, **named):
            done(**now.told)

    plain = {"model_init_kwargs": {"dtype": "bfloat16"}, "gradient_checkpointing": False}
    rows = [json.loads(line) for line in (args.folder / "rows.jsonl").read_text().splitlines()]
    Counted(
        model=args.model,
        args=SFTConfig(
            output_dir=str(args.folder / f"trl-{args.job}-{args.round}"),
            max_steps=args.steps + 2,
            per_device_train_batch_size=args.batch,
            train_sampling_strategy="sequential",  # the same rows in each step
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
            **(plain if args.job == "plain" else {}),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        callbacks=[Told()],
    ).train()


def show(args: argparse.Namespace, found: dict[str, tuple[list[dict[str, float]], list[Block]]]) -> None:
    """Print medians over all timed steps of all rounds."""
    ours, _ = found["align"]
    sources = ", ".join(Path(path).name for path in args.data)
    print(f"{args.model}: {args.batch} conversations of {sources} a step")
    print(f"{len(ours)} timed steps in {args.rounds} rounds; a ratio is align's by TRL's\n")
    others = [name for name in found if name != "align"]
    rows = [
        (
            label,
            *(f"{value(*found[name]):.{digits}f}" for name in found),
            *(f"{value(*found['align']) / value(*found[name]):.2f}" if compared else "" for name in others),
        )
        for label, value, digits, compared in LINES
    ]
    print(table(("", *found, *(f"align / {name}" for name in others)), rows))
    for name in others:
        pairs = zip(ours, found[name][0], strict=True)
        speeds = [a["tokens"] / a["seconds"] / (b["tokens"] / b["seconds"]) for a, b in pairs]
        print(f"\ntokens/s, align / {name}, median of the steps: {statistics.median(speeds):.2f}")


def _sum(steps: list[dict[str, float]], key: str) -> float:
    return sum(step[key] for step in steps)


LINES = (
    ("tokens/s", lambda steps, blocks: _sum(steps, "tokens") / _sum(steps, "seconds"), 0, True),
    ("seconds per step, median", lambda steps, blocks: median(steps, "seconds"), 2, True),
    ("tokens, all timed steps", lambda steps, blocks: _sum(steps, "tokens"), 0, True),
    ("  of them trained", lambda steps, blocks: _sum(steps, "trained_tokens"), 0, True),
    ("padding", lambda steps, blocks: statistics.fmean(step["padding_share"] for step in steps), 3, False),
    ("loss, first timed step", lambda steps, blocks: steps[0]["loss"], 4, True),
    ("loss, mean of the steps", lambda steps, blocks: statistics.fmean(s["loss"] for s in steps), 4, True),
    ("peak memory, GiB", lambda steps, blocks: max(block.peak_gib for block in blocks), 2, True),
)


if __name__ == "__main__":
    main()
