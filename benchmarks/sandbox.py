"""Code rewards a second: the reward ``unit_tests`` on a right answer with one trivial test.

    python benchmarks/sandbox.py [--rewards 400] [--workers 1 2]

Each worker is a process with a warm sandbox of its own, as in the reward pool. The first reward of each,
which starts the sandbox, is timed apart. For scale, the cost of starting an interpreter per reward.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier

ANSWER = "```python\ndef double(x):\n    return 2 * x\n```"
TESTS = ["assert double(2) == 4"]


def work(rewards: int, ready: Barrier, seconds: multiprocessing.Queue[tuple[float, float]]) -> None:
    from align.reward.contract import Sample
    from align.reward.functions.registry import resolve

    function = resolve("unit_tests", {"timeout": 20.0, "isolation": "best_effort"})
    sample = Sample(prompt=(), completion=ANSWER, columns={"tests": TESTS})

    def one() -> None:
        assert function.function(sample, **function.args)["score"] == 1.0

    begin = time.perf_counter()
    one()
    first = time.perf_counter() - begin
    ready.wait()
    begin = time.perf_counter()
    for _ in range(rewards):
        one()
    seconds.put((first, time.perf_counter() - begin))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rewards", type=int, default=400, help="by each worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()

    from align.reward.sandbox import protection

    print(protection())
    spawn = multiprocessing.get_context("spawn")
    for workers in options.workers:
        ready, seconds = spawn.Barrier(workers), spawn.Queue()
        pool = [spawn.Process(target=work, args=(options.rewards, ready, seconds)) for _ in range(workers)]
        for process in pool:
            process.start()
        told = [seconds.get() for _ in pool]
        for process in pool:
            process.join()
        first, slowest = max(first for first, _ in told), max(last for _, last in told)
        rate = workers * options.rewards / slowest
        print(f"{workers} worker(s): {rate:.0f} rewards a second; the first took {first:.2f} s")

    begin = time.perf_counter()
    for _ in range(10):
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    print(f"a fresh interpreter each: at most {10 / (time.perf_counter() - begin):.0f} a second a process")


if __name__ == "__main__":
    main()
