"""What every part shares: it tells its figures, what failed, or what it lacks, in a JSON file.

Importing this makes `align` importable from the checkout, and stands in for small packages that are not
installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import stand_ins  # noqa: E402

STOOD_IN = stand_ins.install()
OPTIONAL = {"torch", "transformers", "vllm", "ray", "trl", "peft"}
"""Packages without which a part is skipped; the lack of any other, or of a module in them, is a fault."""


class Skipped(Exception):
    """The part cannot run here; the message says what is missing."""


class Report:
    """What a part found. Every check is made, so that one failure does not hide the others."""

    def __init__(self) -> None:
        self.figures: dict[str, float | int | str] = {}
        self.failures: list[str] = []

    def check(self, passed: bool, failure: str) -> None:
        if not passed:
            self.failures.append(failure)


def run(part: Callable[[str, Report], None]) -> None:
    """Carry out ``part(device, report)`` as the whole of this process."""
    parser = argparse.ArgumentParser(description=sys.modules[part.__module__].__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--told", type=Path, help="where the outcome goes, as JSON; default: the terminal")
    args = parser.parse_args()
    report = Report()
    status, reason = "passed", ""
    try:
        part(args.device, report)
        if report.failures:
            status, reason = "failed", "; ".join(report.failures)
    except Skipped as error:
        status, reason = "skipped", str(error)
    except ModuleNotFoundError as error:
        traceback.print_exc()
        status = "skipped" if error.name in OPTIONAL else "failed"
        reason = f"{error.name} is not installed"
    except Exception as error:  # whatever a driver or a library raises is this part's failure
        traceback.print_exc()
        status = "failed"
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    told = json.dumps({"status": status, "reason": reason, "figures": report.figures})
    if args.told:
        args.told.write_text(told, encoding="utf-8")
    else:
        print(told)
    raise SystemExit(status == "failed")
