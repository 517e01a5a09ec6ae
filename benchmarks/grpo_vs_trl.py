"""A whole GRPO job: TRL's GRPOTrainer as a CPU user can run it, and align, on the same prompts.

    python benchmarks/grpo_vs_trl.py --data gsm8k/train.jsonl [--completions 32] [--tokens 64]
        [--trl plain default] [--rounds 2] [--steps 3] [--model DIR] [key=value …]

Both take turns, each alone in a process, `rounds` times: a step to warm up, `steps` that are timed, and
one more under watch of the memory. Same prompts in the same order, same chat template, reward function,
group size, learning rate and β, bf16 on both sides, all cores. TRL samples with transformers' `generate`:
on a CPU its own vLLM mode ends at the first weight sync. `plain` is TRL without gradient checkpointing,
`default` with it (its default: less memory, more time). `key=value` overrides align's recipe.

The job is everything from the start of the process to its end, models saved; seconds are from the end of a
step to the end of the next one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from side_by_side import Block, against_trl, align_recipe, done, median, table, trl_parser

STAGES = ("rollout", "score", "reference", "update", "sync")


def main() -> None:
    parser = trl_parser(__doc__ or "", "prompts", ("plain", "default"), steps=3)
    parser.add_argument("--data", help="rows with a question and an answer that ends in '#### number'")
    parser.add_argument("--completions", type=int, default=32, help="per step")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="longest completion")
    parser.add_argument("--beta", type=float, default=0.04)
    parser.add_argument("--trl-batch", type=int, default=8, help="TRL's per_device_train_batch_size")
    args, args.overrides = parser.parse_known_args()
    if args.data is None:
        parser.error("--data is needed")
    if args.job:
        {"prompts": write_prompts, "align": run_align}.get(args.job, run_trl)(args)
    else:
        show(args, against_trl(__file__, args, "prompts", recipe(args)))


def recipe(args: argparse.Namespace) -> dict[str, Any]:
    """align's recipe; what it does not say is at align's defaults."""
    return {
        "kind": "grpo",
        "name": "side-by-side",
        "policy": {"path": args.model, "dtype": "bfloat16"},
        "data": {
            "path": args.data,
            "parts": {
                "gsm8k": {
                    "columns": {"prompt": "question", "answer": "answer.split('####')[-1].strip()"},
                }
            },
        },
        "rewards": {
            "terms": {
                "number": {"function": f"{Path(__file__).with_name('trl_style_reward.py')}:last_number"}
            }
        },
        "grpo": {
            "steps": args.steps + 2,
            "prompts_per_step": args.completions // args.group,
            "group_size": args.group,
            "max_prompt_tokens": 256,
            "overlong_prompts": "drop",
            "beta": args.beta,
            "micro_batch_tokens": 1536,
        },
        "optim": {"lr": 2e-6},
        "rollout": {"max_new_tokens": args.tokens, "max_num_seqs": 64, "kv_cache_gib": 1, "compile": True},
        "report": {"console": False},
    }


def write_prompts(args: argparse.Namespace) -> None:
    """The prompts of all steps in the order in which align draws them."""
    from align.config.recipe import GrpoRecipe
    from align.dataset.prompts import PromptSampler
    from align.train.grpo.prepared import prepare

    loaded, file = align_recipe(args, GrpoRecipe)
    sampler = PromptSampler(prepare(loaded, file=file).prompts, loaded.data, seed=loaded.seed)
    rows = [
        {"prompt": list(prompt.messages), "answer": prompt.columns["answer"], "tokens": len(prompt.token_ids)}
        for _ in range(loaded.grpo.steps)
        for prompt in sampler.next(loaded.grpo.prompts_per_step)
    ]
    (args.folder / "prompts.json").write_text(json.dumps(rows))


def run_align(args: argparse.Namespace) -> None:
    """``align grpo`` on the recipe."""
    from align.config.recipe import GrpoRecipe
    from align.report.reporter import Reporter
    from align.train.grpo.run import run_grpo

    report = Reporter.step

    def step(self: Reporter, stats: Any) -> Any:
        metrics = report(self, stats)
        completions = [each for group in stats.groups for each in group.completions]
        done(
            prompt_tokens=sum(len(group.prompt.token_ids) * len(group.completions) for group in stats.groups),
            completion_tokens=sum(len(each.token_ids) for each in completions),
            **stats.seconds,
        )
        return metrics

    Reporter.step = step
    loaded, file = align_recipe(args, GrpoRecipe)
    run_grpo(loaded, file=file)


def run_trl(args: argparse.Namespace) -> None:
    """TRL's trainer on the same prompts."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
    from trl_style_reward import last_number

    now = SimpleNamespace(seconds={}, told={}, generated=0.0)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        now.seconds[name] = now.seconds.get(name, 0.0) + time.perf_counter() - start

    class Timed(GRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *rest):
            with stage("rollout"):
                completions, logprobs = super()._generate_single_turn(prompt_ids, *rest)
            now.told["prompt_tokens"] = sum(map(len, prompt_ids))
            now.told["completion_tokens"] = sum(map(len, completions))
            return completions, logprobs

        def _calculate_rewards(self, *rest):
            with stage("score"):
                return super()._calculate_rewards(*rest)

        def _get_per_token_logps_and_entropies(self, model, *rest, **named):
            if model is not self.ref_model:
                return super()._get_per_token_logps_and_entropies(model, *rest, **named)
            with stage("reference"):
                return super()._get_per_token_logps_and_entropies(model, *rest, **named)

        def _generate_and_score_completions(self, inputs):
            found = super()._generate_and_score_completions(inputs)
            now.generated = time.perf_counter()
            return found

    class Told(TrainerCallback):
        def on_optimizer_step(self, *rest, **named):
            now.seconds["update"] = time.perf_counter() - now.generated

        def on_step_end(self, *rest, **named):
            done(**now.told, **now.seconds)
            now.seconds, now.told = {}, {}

    rows = json.loads((args.folder / "prompts.json").read_text())
    trainer = Timed(
        model=args.model,
        reward_funcs=last_number,
        args=GRPOConfig(
            output_dir=str(args.folder / f"trl-{args.job}-{args.round}"),
            model_init_kwargs={"dtype": "bfloat16"},
            max_steps=args.steps + 2,
            per_device_train_batch_size=args.trl_batch,
            gradient_accumulation_steps=args.completions // args.trl_batch,
            num_generations=args.group,
            max_completion_length=args.tokens,
            beta=args.beta,
            loss_type="grpo",
            learning_rate=2e-6,
            lr_scheduler_type="constant",
            gradient_checkpointing=args.job == "default",
            shuffle_dataset=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
        ),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"], "answer": row["answer"]} for row in rows]),
        callbacks=[Told()],
    )
    trainer.train()


def show(args: argparse.Namespace, found: dict[str, tuple[list[dict[str, float]], list[Block]]]) -> None:
    """Print medians over all timed steps of all rounds."""
    ours, _ = found["align"]
    print(f"{args.model}: {args.completions} completions of up to {args.tokens} tokens, β = {args.beta:g}")
    print(f"medians of {len(ours)} steps in {args.rounds} rounds; a ratio is TRL's by align's\n")
    others = [name for name in found if name != "align"]
    rows = [
        (label, *(f"{value(*found[name]):.{digits}f}" for name in found), *ratios)
        for label, value, digits in LINES
        for ratios in [[ratio(value, found, name) for name in others]]
    ]
    print(table(("", *found, *(f"{name} / align" for name in others)), rows))


def ratio(value: Any, found: dict[str, Any], name: str) -> str:
    ours = value(*found["align"])
    return f"{value(*found[name]) / ours:.2f}" if ours >= 0.005 else "-"


def _stage(name: str) -> Any:
    return lambda steps, blocks: median(steps, name)


def _other(steps: list[dict[str, float]], blocks: list[Block]) -> float:
    return median(
        [{"other": step["seconds"] - sum(step.get(stage, 0.0) for stage in STAGES)} for step in steps],
        "other",
    )


def _training(steps: list[dict[str, float]], blocks: list[Block]) -> float:
    return median([{"both": step.get("reference", 0.0) + step["update"]} for step in steps], "both")


LINES = (
    ("whole step, s", _stage("seconds"), 2),
    *((f"  {name}", _stage(name), 2) for name in STAGES),
    ("  other", _other, 2),
    ("reference + update, s", _training, 2),
    ("prompt tokens", _stage("prompt_tokens"), 0),
    ("completion tokens", _stage("completion_tokens"), 0),
    ("start to end of step 1, s", lambda steps, blocks: max(block.start for block in blocks), 1),
    ("peak memory, GiB", lambda steps, blocks: max(block.peak_gib for block in blocks), 2),
    ("  Ray's own part", lambda steps, blocks: max(block.ray_gib for block in blocks), 2),
)


if __name__ == "__main__":
    main()
