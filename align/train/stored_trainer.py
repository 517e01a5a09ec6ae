"""What align changes in transformers' Trainer, whatever the loss: optimiser, schedule, checkpoints."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch.optim.lr_scheduler import LambdaLR

from align.algo.schedule import lr_factor
from align.checkpoint.store import CheckpointStore
from align.config.optim import OptimConfig
from align.model.save import save_model
from align.train.sft_optimizer import TrainerAdamW


class StoredTrainer:
    """Put before a Trainer class among the bases.

    AdamW on fp32 master weights, align's schedules and checkpoint store. The class that uses it sets
    ``optim`` and ``store`` before Trainer's own start.
    """

    optim: OptimConfig
    store: CheckpointStore
    # Trainer's own
    model: Any
    processing_class: Any
    accelerator: Any
    state: Any
    optimizer: Any
    lr_scheduler: Any
    is_fsdp_enabled: bool

    mark: float = 0.0
    """When the step in hand began, seconds of ``time.perf_counter``."""

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            named = (self.model if model is None else model).named_parameters()
            if self.is_fsdp_enabled:  # its shards are the fp32 masters
                trained = [p for _, p in named if p.requires_grad]
                groups = [
                    {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.optim.weight_decay},
                    {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
                ]
                betas, eps = self.optim.betas, self.optim.eps
                self.optimizer = torch.optim.AdamW(groups, lr=self.optim.lr, betas=betas, eps=eps)
            else:
                self.optimizer = TrainerAdamW(named, self.optim)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            factor = partial(lr_factor, total_steps=num_training_steps, optim=self.optim)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        # TrainerAdamW clips inside its step; asking here would add a pass over all gradients.
        inherited: Any = super()
        return inherited._get_grad_norm(model, grad_norm) if self.is_fsdp_enabled else None

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        inherited: Any = super()
        inherited._maybe_log_save_evaluate(*args, **kwargs)
        self.mark = time.perf_counter()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # the estimate walks over all modules at every step; `align plan` gives a better one

    def _send_telemetry(self) -> None:
        """Nobody is told about a run."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        if self.accelerator.is_main_process:
            self.store.save(step, self._write_checkpoint, {"step": step})
        else:
            self._write_checkpoint(None)
        self.accelerator.wait_for_everyone()

    def _write_checkpoint(self, folder: Path | None) -> None:
        """Called on all ranks; the first one knows the folder."""
        inherited: Any = self
        path = Path(broadcast_object_list([str(folder)])[0])
        if self.accelerator.is_main_process:
            if not self.is_fsdp_enabled:  # whose shards are saved below
                self._save_weights(path)
            self.state.save_to_json(str(path / "trainer_state.json"))
        inherited._save_optimizer_and_scheduler(str(path))
        inherited._save_rng_state(str(path))
        self.accelerator.wait_for_everyone()

    def _save_weights(self, path: Path) -> None:
        """A model directory; under LoRA the adapter alone."""
        if hasattr(self.model, "peft_config"):
            self.model.save_pretrained(path)
            self.processing_class.save_pretrained(path)
        else:
            save_model(self.model, self.processing_class, path)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # Trainer matches names without insisting, so it would skip experts, which are saved one by
        # one, in silence. The optimiser state holds every trained weight in fp32 and restores it.
        if self.is_fsdp_enabled:
            inherited: Any = super()
            inherited._load_from_checkpoint(resume_from_checkpoint, model)
