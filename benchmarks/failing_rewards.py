"""A run whose reward calls fail at random against the same run with rewards that work.

    python benchmarks/failing_rewards.py --policy runs/quickstart/sft [--steps 20] [--share 0.1]

Both runs start from the same model and draw the same prompts. In the second, ``share`` of the calls of
the maths reward raise, hang, crash their process or eat memory (benchmarks/faults/flaky.py). Prints
held-out accuracy before and after each, with a 95% interval, and the failures that were counted.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "quickstart"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--out", default="runs/failing-rewards")
    args = parser.parse_args()
    out = Path(args.out)
    print(f"{'run':<8}{'held-out maths':>24}  failures counted")
    print(f"{'before':<8}{interval(evaluated(args.policy, out / 'before')):>24}")
    for name, share in (("clean", 0.0), ("faulty", args.share)):
        run = trained(args, out / name, share)
        print(f"{name:<8}{interval(evaluated(run, out / f'{name}-eval')):>24}  {counted(run)}", flush=True)


def align(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "align.cli.main", *map(str, arguments)], check=True, cwd=ROOT)


def trained(args: argparse.Namespace, run: Path, share: float) -> Path:
    """A GRPO run on maths prompts alone."""
    align(
        "grpo",
        RECIPES / "grpo.yaml",
        f"policy.path={args.policy}",
        f"run_dir={run}",
        f"grpo.steps={args.steps}",
        "data.parts={maths: {path: data/quickstart/maths_prompts.jsonl}}",
        f"rewards.terms={{correct: {{function: benchmarks/faults/flaky.py, args: {{share: {share}}}}}}}",
        "rewards.workers=2",
        "rewards.memory_mib=256",
        "rewards.error_budget=0.3",
        "report.console=false",
    )
    return run


def evaluated(model: str | Path, run: Path) -> tuple[float, int]:
    """Share of right held-out answers, and of how many."""
    align("eval", RECIPES / "eval.yaml", f"policy.path={model}", f"run_dir={run}")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "eval/maths" in record:
            rows = (RECIPES.parents[1] / "data/quickstart/maths_heldout.jsonl").read_text().splitlines()
            return record["eval/maths"], len(rows)
    raise SystemExit(f"{run}: no evaluation found")


def interval(result: tuple[float, int]) -> str:
    """With the 95% interval of a share (normal approximation)."""
    share, count = result
    return f"{100 * share:.1f} ± {196 * math.sqrt(share * (1 - share) / count):.1f} %"


def counted(run: Path) -> str:
    """Failures by kind in the step metrics, and those dumped for replay."""
    totals = dict.fromkeys(("error", "timeout"), 0.0)
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for kind in totals:
            totals[kind] += record.get(f"reward/correct/{kind}", 0.0)
    dumped = run / "reward_errors.jsonl"
    lines = len(dumped.read_text().splitlines()) if dumped.exists() else 0
    return ", ".join(f"{kind} {int(count)}" for kind, count in totals.items()) + f", dumped {lines}"


if __name__ == "__main__":
    main()
