"""The quickstart with several seeds: held-out results before and after GRPO, and how long it took.

    python benchmarks/quickstart_seeds.py [--seeds 3] [key=value …]

Each seed draws its own initial weights, mixture order, prompts and samples. Prints every run, the
mean and the spread (largest − smallest) of each change.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

PARTS = ("maths", "code", "refusal", "over_refusal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    args, overrides = parser.parse_known_args()
    rows = []
    for seed in range(args.seeds):
        name = f"quickstart-seed{seed}"
        start = time.perf_counter()
        command = [sys.executable, "-m", "align.cli.main", "run", "recipes/quickstart/pipeline.yaml"]
        subprocess.run([*command, f"name={name}", f"seed={seed}", *overrides], check=True)
        rows.append(
            {
                "seed": seed,
                "minutes": (time.perf_counter() - start) / 60,
                "before": measured(Path("runs") / name / "before"),
                "after": measured(Path("runs") / name / "after"),
            }
        )
        show(rows)


def measured(run: Path) -> dict[str, float]:
    """The held-out means of an eval stage."""
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if f"eval/{PARTS[0]}" in record:
            return {part: record[f"eval/{part}"] for part in PARTS}
    raise SystemExit(f"{run}: no evaluation found")


def show(rows: list[dict]) -> None:
    print(f"\n{'seed':<8}{'minutes':>8}" + "".join(f"{part:>26}" for part in PARTS))
    for row in rows:
        cells = "".join(
            f"{100 * row['before'][part]:>14.1f} → {100 * row['after'][part]:>5.1f} %  " for part in PARTS
        )
        print(f"{row['seed']:<8}{row['minutes']:>8.1f}{cells}")
    changes = {part: [100 * (r["after"][part] - r["before"][part]) for r in rows] for part in PARTS}
    print(
        f"{'change':<8}{'':>8}"
        + "".join(
            f"{statistics.mean(change):>+13.1f} (spread {max(change) - min(change):.1f})"
            for change in changes.values()
        )
    )


if __name__ == "__main__":
    main()
