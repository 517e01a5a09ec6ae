"""Trains SFT and a reward model, sharded by FSDP2 over gloo processes or whole in one: ``FOLDER`` has
``sft.json`` and ``rm.json``. Notes of each pass the bytes of gradients that this process holds after it.

accelerate shards on accelerators alone, so it is told that these processes have some; all the rest is real.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import state
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from align.config.recipe import RewardModelRecipe, SftRecipe
from align.train.reward_model import run as rm
from align.train.sft import run as sft
from align.train.trl import arguments
from align.train.trl.stored_trainer import StoredTrainer


def pretend_accelerators() -> None:
    dist.init_process_group("gloo")
    prepare = state.PartialState._prepare_backend

    def prepare_backend(self: Any, *args: Any) -> tuple[Any, Any]:
        backend, kind = prepare(self, *args)
        return backend, DistributedType.MULTI_GPU if kind == DistributedType.MULTI_CPU else kind

    state.PartialState._prepare_backend = prepare_backend
    state.PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
    arguments.sharded = lambda recipe: True


def held(model: Any) -> int:
    """Bytes of gradients: shards, and what FSDP2 keeps whole between passes."""
    found = 0
    for module in model.modules():
        if isinstance(module, FSDPModule):
            for group in module._get_fsdp_state()._fsdp_param_groups:
                for each in group.fsdp_params:
                    unsharded = getattr(each, "_unsharded_param", None)
                    for whole in (each.unsharded_accumulated_grad, getattr(unsharded, "grad", None)):
                        found += 0 if whole is None else whole.nbytes
                    if each.sharded_param.grad is not None:
                        found += each.sharded_param.grad.to_local().nbytes
    return found


def main() -> None:
    folder, world = Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        pretend_accelerators()
    notes: dict[str, list[int]] = {"sft": [], "rm": []}
    for kind, recipe_class, stage in (("sft", SftRecipe, sft), ("rm", RewardModelRecipe, rm)):
        settings = json.loads((folder / f"{kind}.json").read_text())
        if kind == "sft":
            settings["sft"]["batch_size"] //= world
        recipe = recipe_class.model_validate(
            settings
            | {
                "run_dir": str(folder / f"{kind}-{world}"),
                "cluster": {"device": "cpu", "threads": 2, "processes": world},
            }
        )
        step = StoredTrainer.training_step

        def training_step(self: Any, model: Any, *args: Any, kind: str = kind, step: Any = step) -> Any:
            loss = step(self, model, *args)
            notes[kind].append(held(model))
            return loss

        StoredTrainer.training_step = training_step
        stage.train(recipe, stage.prepare(recipe, file=folder / "recipe.yaml"), resume=False)
        StoredTrainer.training_step = step
    (folder / f"held-{world}-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(notes))


if __name__ == "__main__":
    main()
