"""Make the quickstart's data: maths, code, helpful and safety sets in data/quickstart/.

Code and preference pairs are in folders of their own: the tokenizer is trained on the files beside them.

    python data/make_quickstart.py            # write the files
    python data/make_quickstart.py --check    # compare them with what the generator makes

Needs nothing but Python. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from generators.code import Task, make_tasks
from generators.helpful import make_conversations
from generators.maths import Problem, make_problems
from generators.preferences import helpful_pairs, safety_pairs
from generators.safety import balanced, make_requests

HERE = Path(__file__).resolve().parent


def make_files(
    *, seed: int, worked: float, max_operand: int, sft: int, prompts: int, heldout: int
) -> dict[str, list[dict[str, Any]]]:
    """Every file's rows by file name."""
    kept_apart: set[str] = set()  # expressions of the held-out file, which draws first
    functions_apart: set[tuple[int | None, ...]] = set()  # of the held-out tasks, which draw first too

    def problems(name: str, count: int, *, distinct: bool = False) -> list[Problem]:
        rng = Random(f"{seed}/{name}")
        return make_problems(rng, count, max_operand=max_operand, held_out=kept_apart, distinct=distinct)

    def tasks(name: str, count: int, *, distinct: bool = False) -> list[Task]:
        return make_tasks(Random(f"{seed}/{name}"), count, held_out=functions_apart, distinct=distinct)

    def asked(items: list[Problem]) -> list[dict[str, Any]]:
        return [{"prompt": p.question, "answer": str(p.answer), "kind": p.kind} for p in items]

    def to_write(items: list[Task]) -> list[dict[str, Any]]:
        return [{"prompt": t.question, "tests": t.tests, "kind": t.kind} for t in items]

    def taught(items: Sequence[Problem | Task], rng: Random) -> list[dict[str, Any]]:
        styles = ["worked" if rng.random() < worked else "direct" for _ in items]
        return [
            {"prompt": each.question, "completion": getattr(each, style)(), "kind": each.kind, "style": style}
            for each, style in zip(items, styles, strict=True)
        ]

    held = problems("maths_heldout", heldout, distinct=True)
    held_tasks = tasks("code_heldout", 200, distinct=True)
    asked_rows = problems("maths_prompts", prompts)
    requests = make_requests(Random(f"{seed}/safety"), held_out=False)
    safety_sft = balanced(requests, 1400)
    taken = {row["prompt"] for row in safety_sft}
    rest = [row for row in requests if row["prompt"] not in taken]
    held_requests = make_requests(Random(f"{seed}/safety_heldout"), held_out=True)

    def no_answer(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key != "completion"} for row in rows]

    return {
        "maths_sft.jsonl": taught(problems("maths_sft", sft), Random(f"{seed}/style")),
        "maths_prompts.jsonl": asked(asked_rows),
        "maths_heldout.jsonl": asked(held),
        "code/sft.jsonl": taught(tasks("code_sft", 4000), Random(f"{seed}/code_style")),
        "code/prompts.jsonl": to_write(tasks("code_prompts", 1000)),
        "code/heldout.jsonl": to_write(held_tasks),
        "helpful_sft.jsonl": make_conversations(Random(f"{seed}/helpful"), 2000),
        "safety_sft.jsonl": safety_sft,
        "safety_prompts.jsonl": no_answer(balanced(rest, 800)),
        "safety_heldout.jsonl": no_answer(balanced(held_requests, 200)),
        "preferences/helpful.jsonl": helpful_pairs(Random(f"{seed}/helpful_pairs"), 2400),
        "preferences/safety.jsonl": safety_pairs(Random(f"{seed}/safety_pairs"), 1500),
    }


def to_jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "quickstart", help="folder to write to")
    parser.add_argument("--check", action="store_true", help="compare with the folder, write nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worked", type=float, default=0.5, help="share of answers that show the work")
    parser.add_argument("--max-operand", type=int, default=20, help="largest first operand")
    parser.add_argument("--sft", type=int, default=12000, help="maths conversations for SFT")
    parser.add_argument("--prompts", type=int, default=4000, help="maths prompts for GRPO")
    parser.add_argument("--heldout", type=int, default=400, help="held-out maths prompts")
    args = parser.parse_args()
    files = make_files(
        seed=args.seed, worked=args.worked, max_operand=args.max_operand,
        sft=args.sft, prompts=args.prompts, heldout=args.heldout,
    )  # fmt: skip
    if args.check:
        differing = [
            name
            for name, rows in files.items()
            if not (args.out / name).is_file()
            or (args.out / name).read_text(encoding="utf-8") != to_jsonl(rows)
        ]
        print("differs: " + ", ".join(differing) if differing else f"{args.out} is what the generator makes")
        return int(bool(differing))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (args.out / name).parent.mkdir(exist_ok=True)
        (args.out / name).write_text(to_jsonl(rows), encoding="utf-8")
        print(f"{name:25} {len(rows):6} rows {(args.out / name).stat().st_size / 1024:8.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
