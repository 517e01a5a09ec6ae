"""Two jobs under the same conditions: each alone in a process, taking turns, watched from outside.

A job tells its starter when a step is done (:func:`done` in the job, :func:`run_block` around it).
Memory is the sum of the proportional set sizes of all its processes: a page that several processes map
counts once. Reading it takes 15 ms a GiB of the job's time, so the steps that are timed are not watched;
start-up, the first step, the last step and what follows it are.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

_PIPE = "ALIGN_BENCHMARK_PIPE"
_SECONDS = 0.2  # between two looks at the memory
_RAY = (
    "/gcs_server",
    "/raylet",
    "_private/monitor.py",
    "_private/log_monitor.py",
    "dashboard/dashboard.py",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "ray::IDLE",
)
"""What Ray runs for itself."""


@dataclass(frozen=True, slots=True)
class Block:
    """One start of a job."""

    steps: list[dict[str, float]]
    """Of each timed step: ``seconds``, from the end of the step before, and what the job told."""
    start: float
    """Seconds from the start to the end of the first step."""
    peak_gib: float
    """Largest memory of all processes together."""
    ray_gib: float
    """Part of that in Ray's own processes."""


def done(**told: float) -> None:
    """Called by the job at the end of each step, the untimed ones included."""
    os.write(int(os.environ[_PIPE]), (json.dumps({"at": time.perf_counter(), **told}) + "\n").encode())


def run_block(script: str, arguments: Sequence[str], steps: int, log: Path) -> Block:
    """Run ``python script arguments`` to its end: a job of ``steps`` + 2 steps, first and last not timed.

    Raises:
        SystemExit: the job failed; the end of its log is shown.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    begin = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        job = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=[writer],
            env={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **os.environ, _PIPE: str(writer)},
        )
    os.close(writer)
    try:
        events, peak, rays = _watch(job, reader, steps)
    finally:
        os.close(reader)
        _end(job)
    if job.returncode or len(events) != steps + 2:
        print("\n".join(log.read_text(encoding="utf-8").splitlines()[-30:]), file=sys.stderr)
        raise SystemExit(f"{' '.join(arguments)} failed after {len(events)} of {steps + 2} steps")
    # perf_counter is one clock for all processes of a machine
    timed = [
        {**event, "seconds": event["at"] - before["at"]} for before, event in pairwise(events[: steps + 1])
    ]
    return Block(timed, events[0]["at"] - begin, peak / 2**20, rays / 2**20)


def _watch(job: subprocess.Popen[bytes], reader: int, steps: int) -> tuple[list[dict[str, float]], int, int]:
    """What the job told, and its peak memory in KiB: of all processes, and Ray's part of it."""
    events: list[dict[str, float]] = []
    peak = rays = 0
    kept = b""
    selector = selectors.DefaultSelector()
    selector.register(reader, selectors.EVENT_READ)
    running = True
    while running:
        running = job.poll() is None  # what it told last is read once more after its end
        watched = not 1 <= len(events) <= steps
        if selector.select(_SECONDS if watched and running else running):
            if not (chunk := os.read(reader, 65536)):
                selector.unregister(reader)
            *lines, kept = (kept + chunk).split(b"\n")
            events += [json.loads(line) for line in lines]
        elif watched:
            own, ray = _memory(job.pid)
            if own + ray > peak:
                peak, rays = own + ray, ray
    return events, peak, rays


def _memory(pid: int) -> tuple[int, int]:
    """KiB of a process and all below it, and apart from that of Ray's own among them."""
    own = ray = 0
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0
    for process in tree:
        try:
            command = " ".join(process.cmdline())
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        except (psutil.Error, OSError):  # it ended in between
            continue
        size = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
        if any(mark in command for mark in _RAY):
            ray += size
        else:
            own += size
    return own, ray


def _end(job: subprocess.Popen[bytes]) -> None:
    """Leave nothing of a job behind that was cut off."""
    if job.poll() is not None:
        return
    tree = psutil.Process(job.pid).children(recursive=True)
    job.terminate()
    _, alive = psutil.wait_procs([*tree, psutil.Process(job.pid)], timeout=20)
    for process in alive:
        process.kill()
    job.wait()


def take_turns(
    names: Sequence[str], rounds: int, run: Callable[[str, int], Block]
) -> dict[str, tuple[list[dict[str, float]], list[Block]]]:
    """Each name once per round, every second round in the opposite order; all timed steps and blocks."""
    found: dict[str, tuple[list[dict[str, float]], list[Block]]] = {name: ([], []) for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            print(f"round {number + 1}/{rounds}: {name}", file=sys.stderr, flush=True)
            block = run(name, number)
            found[name][0].extend(block.steps)
            found[name][1].append(block)
    return found


def trl_parser(description: str, first: str, variants: Sequence[str], steps: int) -> argparse.ArgumentParser:
    """The command line of a comparison with TRL.

    Args:
        description: of the benchmark.
        first: the job that writes what both train on.
        variants: of TRL, its default settings among them.
        steps: timed steps per round unless told otherwise.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="models/smollm2-135m-instruct")
    parser.add_argument("--trl", nargs="+", choices=variants, default=list(variants))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=steps, help="timed steps per round")
    parser.add_argument("--job", choices=(first, "align", "plain", "default"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--round", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def against_trl(
    script: str, args: argparse.Namespace, first: str, recipe: Mapping[str, Any]
) -> dict[str, tuple[list[dict[str, float]], list[Block]]]:
    """Write align's recipe and, in the job ``first``, what both train on; then both take turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.json").write_text(json.dumps(recipe))
        arguments = [*sys.argv[1:], "--folder", str(folder)]
        subprocess.run([sys.executable, script, *arguments, "--job", first], check=True)

        def run(name: str, number: int) -> Block:
            job = [*arguments, "--job", name.removeprefix("TRL "), "--round", str(number)]
            return run_block(script, job, args.steps, folder / f"{name}-{number}.log")

        return take_turns([*(f"TRL {variant}" for variant in args.trl), "align"], args.rounds, run)


def align_recipe(args: argparse.Namespace, kind: Any, *extra: str) -> tuple[Any, Path]:
    """In a job: align's recipe with the overrides of the command line, and its file."""
    from align.config.load import load_recipe

    file = args.folder / "recipe.json"
    run_dir = f"run_dir={args.folder}/align-{args.round}"
    return load_recipe(file, [run_dir, *args.overrides, *extra], kind=kind), file


def median(steps: Sequence[Mapping[str, float]], key: str) -> float:
    """Median over steps; a step that lacks the key counts as 0."""
    return statistics.median(step.get(key, 0.0) for step in steps)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Plain columns; the first one is a label."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(cell.rjust(width + 3) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in cells
    )
