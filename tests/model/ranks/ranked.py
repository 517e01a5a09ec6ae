"""What every rank of ``test_ranks.py`` does: a module, since ranks are processes of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

GROUPS = ((3, 7, 5, 9), (4, 4, 8), (6, 2))
"""Tokens of the completions of each prompt."""


def recipe(case: dict[str, Any], policy: str) -> Any:
    from align.config.recipe import GrpoRecipe

    grpo = {"beta": 0.04, "micro_batch_tokens": 40, "steps": 3} | case.get("grpo", {})
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "ranks",
            "policy": {"path": policy, "init": "random", "dtype": "float32"} | case.get("policy", {}),
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            "grpo": grpo,
            "optim": {"lr": 1e-3, "warmup_steps": 0, "grad_clip": 0.05},
        }
    )


def batch_of(case: dict[str, Any], words: int) -> Any:
    import numpy as np

    from align.types import TrainBatch

    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(2, words, (count,), generator=generator).tolist()

    groups = GROUPS[: case.get("groups", len(GROUPS))]
    prompts = [tokens(4 + 3 * i) for i in range(len(groups))]
    rows = [(i, tokens(length)) for i, lengths in enumerate(groups) for length in lengths]
    count = len(rows)
    return TrainBatch(
        prompt_ids=[f"p/{i}" for i, _ in rows],
        prompt_tokens=[prompts[i] for i, _ in rows],
        completion_tokens=[completion for _, completion in rows],
        rollout_logprobs=[[-5.0] * len(completion) for _, completion in rows],
        advantages=torch.randn(count, generator=generator).tolist(),
        token_weights=[1 / count / len(completion) for _, completion in rows],
        routed_experts=[
            np.stack(
                [
                    np.stack([np.random.default_rng(7 * i + j).permutation(4)[:2] for j in range(2)])
                    for _ in range(len(prompts[i]) + len(completion) - 1)
                ]
            ).astype(np.uint8)
            for i, completion in rows
        ]
        if case.get("grpo", {}).get("replay") == "rollout"
        else None,
    )


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def play(case: dict[str, Any], policy_path: str, ranks: Any) -> dict[str, Any]:
    """Three updates of one case, and everything that can be seen of them."""
    from align.model.policy import PolicyModel

    policy = PolicyModel(recipe(case, policy_path), device="cpu", ranks=ranks)
    batch = batch_of(case, policy.model.config.vocab_size)
    found: dict[str, Any] = {"logprobs": policy.logprobs(batch), "metrics": []}
    gradients: dict[str, torch.Tensor] = {}
    step = policy.optimizer.step

    def watched(*arguments: Any) -> float:
        for name, parameter in policy.optimizer.compute.items():
            gradient = parameter.grad if parameter.grad is not None else policy.optimizer.master[name].grad
            if "done" not in gradients and gradient is not None:
                gradients[name] = whole(gradient).float().clone()
        gradients["done"] = torch.ones(1)
        return step(*arguments)

    policy.optimizer.step = watched  # type: ignore[method-assign]
    for _ in range(3):
        if case.get("grpo", {}).get("beta", 0.04):
            batch.ref_logprobs = policy.ref_logprobs(batch)
        if case.get("grpo", {}).get("replay") == "trainer":
            batch.old_logprobs = policy.logprobs(batch)
        found["metrics"].append(policy.update(batch))
    found["gradients"] = {name: each for name, each in gradients.items() if name != "done"}
    found["weights"] = {name: each.clone() for name, each in policy.weights()}
    found["changed"] = {name: each.clone() for name, each in policy.weights(changed_only=True)}
    found["probe"] = policy.probe(batch.prompt_tokens[0] + batch.completion_tokens[0])
    if "saves" in case:
        policy.save(Path(case["saves"]))
        found["after saving"] = policy.update(batch)
    if "loads" in case:
        policy.load(Path(case["loads"]))
        found["after loading"] = policy.update(batch)
    if case.get("breaks"):
        found["fault"], found["kept"] = broken(policy, batch)
    return found


def broken(policy: Any, batch: Any) -> tuple[str, bool]:
    """What every rank raises for a value that is not finite on one of them, and whether weights stayed."""
    from align.errors import NonFiniteError

    before = {name: each.clone() for name, each in policy.weights()}
    batch.advantages[0] = float("nan")
    try:
        policy.update(batch)
    except NonFiniteError as error:
        kept = all(torch.equal(each, before[name]) for name, each in policy.weights())
        return str(error), kept
    return "", False


def main(rank: int, world: int, port: int, folder: Path) -> None:
    """Play all cases of this number of ranks; rank 0 writes what it saw, the others what they raised."""
    torch.set_num_threads(1)
    from align.cluster.meeting import Meeting, join
    from align.model.ranks.layout import Ranks

    join(Meeting("127.0.0.1", port), rank, world, "cpu")
    for name, case in json.loads((folder / f"cases-{world}.json").read_text()).items():
        found = play(case, case["model"], Ranks(rank, world, case.get("expert_parallel", 1)))
        if rank == 0:
            torch.save(found, folder / f"{name}.pt")
        elif "fault" in found:
            (folder / f"{name}-{rank}.json").write_text(json.dumps([found["fault"], found["kept"]]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main(*map(int, sys.argv[1:4]), Path(sys.argv[4]))
