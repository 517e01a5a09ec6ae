"""A push of the policy's weights into the engine, held against copying the same bytes once.

    python benchmarks/weight_push.py [--model DIR] [--repeats 7] [--threads N] [--lora-rank 16]

Trainer and engine are the actors of a run. Every repeat changes the weights, then times a push (publish,
load, and all that the engine must rebuild; the probe is apart) and one memory copy of as many bytes, in
the trainer's process, between buffers that were touched before. Besides the wall clock there is the
processor time of both processes, which other programs on the machine do not stretch; for it, and for the
parts of a push, take one thread. Ratios are medians over the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from align.cluster.placement import Placement, cluster
from align.cluster.policy_group import PolicyGroup
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.config.run import ClusterConfig

Times = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="models/smollm2-135m-instruct")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--lora-rank", type=int, default=16)
    args = parser.parse_args()
    with cluster(ClusterConfig(device="cpu", threads=args.threads)) as placement:
        rollout = RolloutGroup.start(placement, recipe(args.model, 0), args.model)
        full = Way(placement, rollout, recipe(args.model, 0))
        threads = placement.trainers[0].threads
        print(f"{args.model}, {threads} threads, {full.transport}; medians of {args.repeats}\n")
        show("every weight", full.measure(args.repeats))
        show("every weight, through vLLM's reload_weights", full.measure(args.repeats, own=False))
        show("every weight, after the engine slept", full.measure(args.repeats, slept=True))
        ray.kill(full.policy.actors[0])
        adapted = Way(placement, rollout, recipe(args.model, args.lora_rank))
        show(f"adapters of rank {args.lora_rank}, merged", adapted.measure(args.repeats))


def recipe(model: str, rank: int) -> GrpoRecipe:
    lora = {"lora": {"rank": rank}} if rank else {}
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "weight-push",
            "policy": {"path": model, "dtype": "bfloat16", **lora},
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            "grpo": {"max_prompt_tokens": 128, "beta": 0.0},
            "rollout": {"max_new_tokens": 64, "kv_cache_gib": 1, "max_num_seqs": 8},
        }
    )


class Way:
    """A policy and its way to the engine."""

    def __init__(self, placement: Placement, rollout: RolloutGroup, settings: GrpoRecipe) -> None:
        self.policy, self.rollout = PolicyGroup.start(placement, settings, None), rollout
        self.sync = WeightSync(self.policy, rollout, settings, list(range(5, 69)))
        (self.transport,) = self.sync.transports
        self.sync.push()

    def measure(self, repeats: int, *, slept: bool = False, own: bool = True) -> Times:
        """Milliseconds of each part.

        Args:
            repeats: without the first, which warms up.
            slept: the engine gives its weights back before each push.
            own: else through vLLM's own reload.
        """
        times: Times = {}
        for repeat in range(repeats + 1):
            inside(self.policy, partial(change, up=repeat % 2 == 0))
            if slept:
                self.rollout.sleep("engine")
                self.rollout.wake("engine")
            begin = time.perf_counter()
            whole = not own or ray.get(self.rollout.actors[0].needs_all.remote())
            manifest, publishing = inside(self.policy, partial(publish, version=repeat, whole=whole))
            loading, packing = inside(self.rollout, partial(load if own else reload, manifest=manifest))
            wall = time.perf_counter() - begin
            checking = inside(self.rollout, partial(check, manifest=manifest))
            copying = inside(self.policy, partial(copy_once, nbytes=manifest.nbytes))
            if not repeat:
                continue
            row = {"copy": copying.wall, "push": wall, "copy, CPU": copying.cpu}
            row |= {"push, CPU": publishing.cpu + loading.cpu, "publish": publishing.cpu, "load": loading.cpu}
            row |= {"packing": packing, "digests": checking.cpu, "MB": manifest.nbytes / 1e9}
            for name, seconds in row.items():
                times.setdefault(name, []).append(seconds * 1e3)
        return times


@dataclass
class Clock:
    """Seconds of a block: by the wall, and of this process's threads."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Clock:
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


def inside(client: Any, function: Any) -> Any:
    """Run ``function(actor)`` in the actor's process."""
    return ray.get(client.actors[0].__ray_call__.remote(function))


def change(actor: Any, *, up: bool) -> None:
    """What an update does to the weights: every one changes."""
    import torch

    with torch.no_grad():
        for parameter in actor.policy.model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.01 if up else 1 / 1.01)


def copy_once(actor: Any, *, nbytes: int) -> Clock:
    """One memory copy, into pages that were touched before; the best of three in a row."""
    import torch

    source, target = torch.ones(nbytes, dtype=torch.uint8), torch.zeros(nbytes, dtype=torch.uint8)
    clocks = []
    for _ in range(3):
        with Clock() as clock:
            target.copy_(source)
        clocks.append(clock)
    return min(clocks, key=lambda each: each.cpu)


def publish(actor: Any, *, version: int, whole: bool) -> tuple[Any, Clock]:
    with Clock() as clock:
        (manifest,) = actor.publish(version, whole).values()
    return manifest, clock


def load(actor: Any, *, manifest: Any) -> tuple[Clock, float]:
    """A load, and how much of it oneDNN took to lay weights out for its kernels."""
    from vllm import _custom_ops as kernels

    plain, packing = kernels.create_onednn_mm, Clock()
    spent = 0.0

    def create(*arguments: Any) -> Any:
        nonlocal spent
        with packing:
            made = plain(*arguments)
        spent += packing.cpu
        return made

    kernels.create_onednn_mm = create
    try:
        with Clock() as clock:
            actor.load(manifest)
    finally:
        kernels.create_onednn_mm = plain
    return clock, spent


def reload(actor: Any, *, manifest: Any) -> tuple[Clock, float]:
    """vLLM's own reload, and the tied head that it forgets."""

    def through_vllm(worker: Any) -> None:
        worker.model_runner.reload_weights(weights_iterator=manifest.open())
        head = worker.model_runner.get_model().lm_head
        head.quant_method.process_weights_after_loading(head)

    with Clock() as clock:
        actor.engine.llm.collective_rpc(through_vllm)
    return clock, float("nan")


def check(actor: Any, *, manifest: Any) -> Clock:
    """Comparing the digests alone."""
    with Clock() as clock:
        for _ in manifest.open():
            pass
    return clock


def show(title: str, times: Times) -> None:
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(f"{title}: {middle.pop('MB'):.0f} MB")
    print("  " + ", ".join(f"{name} {value:.1f}" for name, value in middle.items()) + " ms")
    for kind in ("", ", CPU"):
        ratios = [a / b for a, b in zip(times["push" + kind], times["copy" + kind], strict=True)]
        print(f"  push / copy{kind}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
