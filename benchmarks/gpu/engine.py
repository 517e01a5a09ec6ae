"""The rollout engine (vLLM) beside a trainer on one GPU: pushes, sleep, wake.

The engine starts without weights and gets them from the trainer's process; both must then say the same of a
probe, and the engine's decoding the same as its prefill. KV cache and weights sleep, wake and are
pushed again, in the order of a scheduled run: the answers must be those from before. An update that is not
pushed must show, and be gone after its push.
"""

from __future__ import annotations

import math
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import part
import shapes
import torch
from trainer import Trainer
from worker import Worker

from align.config.rollout import SyncConfig
from align.sync.verify import Agreement
from align.types import Prompt

CONTEXT = 256
PROBE = [5 + 7 * place % 600 for place in range(64)]
PROMPTS = [Prompt(f"p/{row}", (), PROBE[row : row + 24]) for row in range(8)]
NEW_TOKENS = 32
SAME = 1e-3
"""Largest mean |Δ log-probability| of the probe between two times that the engine holds the same weights."""
EQUAL = 0.9
"""Least share of answers that stay what they were; where two tokens are level, either may be written."""


def main(device: str, report: part.Report) -> None:
    import vllm  # skipped where it is missing, before anything starts

    report.figures["vllm"] = vllm.__version__
    with tempfile.TemporaryDirectory() as folder:
        path = shapes.moderate(Path(folder), device)
        with Worker(Trainer, path, device) as trainer:
            report.figures["transport"] = trainer.ask("transport")
            engine = start(path, device)
            together(engine, trainer, device, report)


def start(path: Path, device: str) -> Any:
    """An engine without weights, as the rollout actor starts one."""
    from align.rollout.engine import Engine

    settings = shapes.recipe(
        path,
        rollout={
            "max_new_tokens": NEW_TOKENS,
            "max_num_seqs": 16,
            "gpu_memory_utilization": 0.3,
            "kv_cache_gib": 1,
            "compile": False,
        },
    )
    return Engine(
        str(path),
        settings.rollout,
        dtype="bfloat16",
        max_model_len=CONTEXT,
        seed=0,
        device=device,
        tokenizer=str(shapes.QUICKSTART),
        blank=True,
        sleeps=True,
        overrides={"moe_router_dtype": "float32"},
    )


def together(engine: Any, trainer: Worker, device: str, report: part.Report) -> None:
    """Push, sleep, wake, push; update, push."""
    agreement = Agreement(SyncConfig(), "bfloat16")
    report.figures["first push, s"] = push(engine, trainer, 0)
    mean, largest = agree(agreement, engine, trainer)
    report.figures |= {"probe, mean |Δ|": mean, "probe, largest |Δ|": largest}
    before, answers = engine.score(PROBE), answer(engine)

    for name in ("kv_cache", "engine"):
        free = free_bytes(device)
        engine.sleep(name)
        report.figures[f"{name}: freed on the device, GiB"] = (free_bytes(device) - free) / 2**30
        if device != "cpu":
            report.check(free_bytes(device) > free, f"{name}: its sleep frees nothing")
    engine.wake("engine")
    report.figures["push after sleep, s"] = push(engine, trainer, 1)
    engine.wake("kv_cache")
    gap = mean_gap(before, engine.score(PROBE))
    again = answer(engine)
    share = sum(map(list.__eq__, answers, again)) / len(answers)
    report.figures |= {"after sleep: probe, mean |Δ|": gap, "after sleep: equal answers, share": share}
    report.check(gap <= SAME, f"after sleep and push the probe differs by {gap:.3g}, allowed {SAME:g}")
    report.check(share >= EQUAL, f"after sleep and push only {share:.0%} of the answers are the same")
    agree(agreement, engine, trainer)

    trainer.ask("update")
    stale = mean_gap(trainer.ask("probe", PROBE), engine.score(PROBE))
    report.figures["second push, s"] = push(engine, trainer, 2)
    fresh, _ = agree(agreement, engine, trainer)
    report.figures |= {"update not pushed: probe, mean |Δ|": stale, "pushed: probe, mean |Δ|": fresh}
    report.check(fresh < stale / 2, "a push of changed weights brings the engine no nearer to the trainer")


def push(engine: Any, trainer: Worker, version: int) -> float:
    """All weights from the trainer into the engine, seconds."""
    begin = time.perf_counter()
    data, _ = trainer.ask("publish", version)
    engine.load_weights(pickle.loads(data), version)
    trainer.ask("release")
    return time.perf_counter() - begin


def agree(agreement: Agreement, engine: Any, trainer: Worker) -> tuple[float, float]:
    """Raises SyncError where trainer and engine, or the engine's two ways, differ too much."""
    found = agreement.check(trainer.ask("probe", PROBE), engine.score(PROBE))
    agreement.check_decoding(*engine.decode_twice(PROBE))
    return found


def answer(engine: Any) -> list[list[int]]:
    return [each.token_ids for each in engine.answer(PROMPTS, max_new_tokens=NEW_TOKENS)]


def mean_gap(left: list[float], right: list[float]) -> float:
    return math.fsum(abs(a - b) for a, b in zip(left, right, strict=True)) / len(left)


def free_bytes(device: str) -> int:
    return torch.cuda.mem_get_info()[0] if device != "cpu" else 0


if __name__ == "__main__":
    part.run(main)
