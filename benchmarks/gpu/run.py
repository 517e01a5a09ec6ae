"""What a GPU must show of align, in under ten minutes and from a bare checkout.

    python benchmarks/gpu/run.py [FILE.json] [--device auto|cuda|cpu] [--only PART …]

Each part is a process of its own with its own time limit, and is skipped where something that it needs is
missing. A table says how each went, and the JSON holds the figures: in FILE, else in `gpu.json` in the folder
$OUT, else in runs/gpu. `--device cpu` carries out on a CPU what can be: it shows that the code runs,
and measures nothing.

Exit status: 0 all that ran passed, 1 a part failed, 3 nothing ran (no GPU, or all parts skipped).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PARTS = {
    "agreement": 90,
    "mfu": 110,
    "moves": 70,
    "sharing": 80,
    "folding": 30,
    "engine": 140,
    "sharded": 30,
}
"""Seconds that each may take on a GPU."""
MACHINE = 90
"""The same of finding out what is there: the first import of torch from a cold disk takes long."""
ALL = 580
"""The same of everything together; what is left of it bounds each part."""
ON_CPU = 4
"""Times as long on a CPU, which others may use as well."""
NOT_ON_CPU = {"engine"}
"""Not tried on a CPU unless asked for: the tests have engines of their own."""
LATE = {"status": "skipped", "reason": "no time is left", "figures": {}, "seconds": 0.0}
NOTHING = 3
LAST_LINES = 25


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, metavar="FILE.json")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), metavar="PART")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the part ends too
    out = args.out or Path(os.environ.get("OUT") or ROOT / "runs" / "gpu") / "gpu.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_suffix(".log")
    log.write_text("", encoding="utf-8")

    begin = time.monotonic()
    machine = run_part("machine", "cpu", MACHINE, log)
    gpu = machine["figures"].get("GPU")
    found: dict[str, Any] = {"device": args.device, "machine": machine["figures"], "parts": {}}
    for name, value in machine["figures"].items():
        print(f"{name:<12} {value}")
    if machine["status"] == "failed":
        print(f"this machine cannot be looked at: {machine['reason']}")
        return end(out, found, 1)
    if machine["status"] == "skipped":
        print(f"nothing ran: {machine['reason']}")
        return end(out, found, NOTHING)
    if args.device != "cpu" and gpu is None:
        print("nothing ran: PyTorch sees no GPU here; --device cpu tries the code without one")
        return end(out, found, NOTHING)
    device = found["device"] = "cpu" if args.device == "cpu" else "cuda"
    for name in args.only or [each for each in PARTS if each not in NOT_ON_CPU or device != "cpu"]:
        left = ALL - (time.monotonic() - begin)
        seconds = PARTS[name] * ON_CPU if device == "cpu" else min(PARTS[name], left)
        found["parts"][name] = part = run_part(name, device, seconds, log) if seconds > 0 else LATE
        show(name, part)
        write(out, found)  # what is known survives if this process does not
    print(f"\n{'part':<12}{'status':<10}{'seconds':>8}  why")
    for name, part in found["parts"].items():
        print(f"{name:<12}{part['status']:<10}{part['seconds']:>8.1f}  {part['reason']}")
    states = {part["status"] for part in found["parts"].values()}
    if states == {"skipped"}:
        print("nothing ran: every part was skipped")
        return end(out, found, NOTHING)
    return end(out, found, 1 if "failed" in states else 0)


def run_part(name: str, device: str, seconds: float, log: Path) -> dict[str, Any]:
    """One part in a process group of its own, which ends with it: status, reason, seconds, figures."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, log.open("a", encoding="utf-8") as output:
        print(f"--- {name} on {device}", file=output, flush=True)
        told = Path(folder) / "told.json"
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, str(HERE / f"{name}.py"), "--device", device, "--told", str(told)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
            },
            start_new_session=True,
        )
        reason = ""
        try:
            status = process.wait(seconds)
            if status and not told.exists():
                reason = f"its process ended with status {status}"
        except subprocess.TimeoutExpired:
            reason = f"not done after {seconds:g} s"
        finally:
            end_group(process)
        part = {"status": "failed", "reason": reason, "figures": {}}
        if told.exists():
            part |= json.loads(told.read_text(encoding="utf-8"))
        if reason:
            part |= {"status": "failed", "reason": reason}
    part["seconds"] = time.perf_counter() - begin
    if part["status"] == "failed":
        lines = log.read_text(encoding="utf-8", errors="replace").rpartition("--- ")[2].splitlines()
        print("\n".join(lines[-LAST_LINES:]), file=sys.stderr)
    return part


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the part and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def show(name: str, part: dict[str, Any]) -> None:
    print(f"\n{name}: {part['status']}{', ' + part['reason'] if part['reason'] else ''}", flush=True)
    for figure, value in part["figures"].items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"  {figure:<52} {text}", flush=True)


def end(out: Path, found: dict[str, Any], status: int) -> int:
    found["status"] = {0: "passed", 1: "failed", NOTHING: "nothing ran"}[status]
    write(out, found)
    print(f"{found['status']}: {out}")
    return status


def write(out: Path, found: dict[str, Any]) -> None:
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
