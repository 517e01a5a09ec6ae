"""How the rollout engine samples fastest: eager or compiled, G requests or one with n = G, prefix cache.

    python benchmarks/rollout_modes.py --model models/smollm2-135m-instruct --data gsm8k/train.jsonl

Each engine is a process of its own that stays up; they take turns on the same prompts, and only one
computes at a time. Every completion has the full length, so all turns sample the same number of tokens.
The first turn warms up. Prints medians, the ratio of each to the first turn by turn, and the share of
the prompts' tokens that came from the prefix cache.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any

MODES: dict[str, dict[str, Any]] = {
    "G requests": {},
    "one with n = G": {"one": True},
    "vLLM's blocks": {"blocks": {}},
    "no prefix cache": {"blocks": {"enable_prefix_caching": False}},
    "compiled": {"compile": True},
}
"""The first is what align does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="model directory")
    parser.add_argument("--data", type=Path, required=True, help=".jsonl with a column of prompts")
    parser.add_argument("--prompt", default="question", help="that column")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    args = parser.parse_args()

    spawn = multiprocessing.get_context("spawn")
    engines = {}
    for mode in args.modes:
        ours, theirs = spawn.Pipe()
        spawn.Process(target=serve, args=(theirs, vars(args), MODES[mode]), daemon=True).start()
        theirs.close()  # or the end of that process would go unnoticed
        engines[mode] = ours
        print(f"{mode}: up after {ours.recv():.1f} s", flush=True)  # one at a time
    turns: dict[str, list[dict[str, float]]] = {mode: [] for mode in engines}
    for turn in range(args.turns + 1):
        for mode in engines if turn % 2 == 0 else reversed(engines):
            engines[mode].send(turn)
            turns[mode].append(engines[mode].recv())
    show(args, {mode: rows[1:] for mode, rows in turns.items()})


def serve(pipe: Any, args: dict[str, Any], mode: dict[str, Any]) -> None:
    """An engine that samples whenever it is told a turn, and answers with seconds and counts."""
    start = time.perf_counter()
    from align.config.rollout import RolloutConfig
    from align.rollout import engine as module

    count, group, tokens = args["prompts"], args["group"], args["tokens"]
    if "blocks" in mode:
        module.cpu_blocks = lambda *_: mode["blocks"]
    settings = RolloutConfig(
        max_new_tokens=tokens, max_num_seqs=count * group, kv_cache_gib=1, compile=mode.get("compile", False)
    )
    prompts = read_prompts(args)
    longest = max(len(prompt.token_ids) for prompt in prompts) + tokens
    engine = module.Engine(args["model"], settings, dtype="bfloat16", max_model_len=longest, seed=0)
    from vllm import SamplingParams

    counts = Counts(engine.llm)
    pipe.send(time.perf_counter() - start)
    while True:
        turn = pipe.recv()
        engine.llm.reset_prefix_cache()
        counts.clear()
        asked = [prompts[(turn * count + i) % len(prompts)] for i in range(count)]
        start = time.perf_counter()
        requests = [(prompt, i) for prompt in asked for i in range(1 if mode.get("one") else group)]
        params = [
            SamplingParams(
                n=group if mode.get("one") else 1, max_tokens=tokens, ignore_eos=True, logprobs=0,
                seed=1000 * turn + i,
            )
            for _, i in requests
        ]  # fmt: skip
        engine.llm.generate(
            [{"prompt_token_ids": prompt.token_ids} for prompt, _ in requests], params, use_tqdm=False
        )
        seconds = time.perf_counter() - start
        pipe.send({"seconds": seconds, "tokens": count * group * tokens, "cached": counts.share()})


class Counts:
    """Prompt tokens of the requests that an engine was given, and how many were not computed again."""

    def __init__(self, llm: Any) -> None:
        scheduler = llm.llm_engine.engine_core.engine_core.scheduler
        manager = scheduler.kv_cache_manager
        find = manager.get_computed_blocks

        def get_computed_blocks(request: Any) -> Any:
            answer = find(request)
            self.found += answer[1]
            self.all += request.num_prompt_tokens
            return answer

        manager.get_computed_blocks = get_computed_blocks
        self.clear()

    def clear(self) -> None:
        self.found = self.all = 0

    def share(self) -> float:
        return self.found / max(self.all, 1)


def read_prompts(args: dict[str, Any]) -> list[Any]:
    """Tokenised prompts for every turn."""
    from transformers import AutoTokenizer

    from align.types import Prompt

    tokenizer = AutoTokenizer.from_pretrained(args["model"])
    wanted = args["prompts"] * (args["turns"] + 1)
    rows = [json.loads(line) for line in args["data"].read_text(encoding="utf-8").splitlines()[:wanted]]
    prompts = []
    for number, row in enumerate(rows):
        messages = ({"role": "user", "content": row[args["prompt"]]},)
        ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
        prompts.append(Prompt(str(number), messages, ids["input_ids"], row, part="data"))
    return prompts


def show(args: argparse.Namespace, turns: dict[str, list[dict[str, float]]]) -> None:
    """Print medians over the turns."""
    print(f"\n{args.model}: {args.prompts} prompts x {args.group} completions of {args.tokens} tokens")
    print(f"medians of {args.turns} turns\n")
    first = turns[next(iter(turns))]
    print(f"{'':<18}{'seconds':>10}{'tokens/s':>10}{'speed':>8}{'cached':>9}")
    for mode, rows in turns.items():
        seconds = statistics.median(row["seconds"] for row in rows)
        speed = statistics.median(
            one["seconds"] / other["seconds"] for one, other in zip(first, rows, strict=True)
        )
        cached = statistics.median(row["cached"] for row in rows)
        print(f"{mode:<18}{seconds:>10.2f}{rows[0]['tokens'] / seconds:>10.0f}{speed:>8.2f}{cached:>9.0%}")


if __name__ == "__main__":
    main()
