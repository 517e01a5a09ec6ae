"""A run whose reward calls fail at random against the same run with rewards that work.

    python benchmarks/failing_rewards.py --policy runs/quickstart/sft [--steps 20] [--share 0.1]

Both runs start from the same model and draw the same prompts. In the second, ``share`` of the calls of
the maths reward raise, hang, crash their process or eat memory (benchmarks/faults/flaky.py). Prints
held-out accuracy before and after each, with a 95% interval, and the failures by kind: as many as were
caused, by the rollouts, and as many as were counted, by ``reward_errors.jsonl``. The error budget is
raised from 5% to 30%, or it would end the second run.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as parquet
from faults.flaky import KINDS, fault

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
    print(f"{'run':<8}{'held-out maths':>24}  failures: counted of caused")
    print(f"{'before':<8}{interval(evaluated(args.policy, out / 'before')):>24}")
    for name, share in (("clean", 0.0), ("faulty", args.share)):
        run = trained(args, out / name, share)
        print(
            f"{name:<8}{interval(evaluated(run, out / f'{name}-eval')):>24}  {failures(run, share)}",
            flush=True,
        )


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


TOLD = {
    "exception": "a fault on purpose",
    "hang": "no answer within",
    "crash": "the call ended its process",
    "memory": "MemoryError",
}
"""What a failure of each kind says of itself."""


def failures(run: Path, share: float) -> str:
    """By kind: counted in ``reward_errors.jsonl`` of those that the run's completions caused."""
    caused: Counter[str | None] = Counter()
    columns = ["prompt_id", "sample_index", "completion"]
    for file in sorted((run / "rollouts").glob("*.parquet")):
        table = parquet.read_table(file, columns=columns).to_pydict()
        caused.update(fault(*row, share) for row in zip(*table.values(), strict=True))
    errors = run / "reward_errors.jsonl"
    details = [json.loads(line)["detail"] for line in errors.open()] if errors.exists() else []
    counted = {kind: sum(told in detail for detail in details) for kind, told in TOLD.items()}
    if sum(counted.values()) != len(details):
        raise SystemExit(f"{errors}: {len(details) - sum(counted.values())} failures of no known kind")
    return ", ".join(f"{kind} {counted[kind]} of {caused[kind]}" for kind in KINDS)


if __name__ == "__main__":
    main()
