"""What align changes in transformers' Trainer, whatever the loss: optimiser, schedule, checkpoints, the
balance of experts, and what stops a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback

from align.algo.router import expert_balance_loss, expert_load, peak_load
from align.algo.schedule import lr_factor
from align.checkpoint.store import CheckpointStore
from align.config.optim import OptimConfig
from align.errors import NonFiniteError
from align.model.experts.routers import RouterRecorder
from align.model.files.save import save_model
from align.train.interrupt import StopRequest
from align.train.trl.optimizer import TrainerAdamW


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
    is_world_process_zero: Any
    train: Any
    # of the class that uses it
    _note: Callable[[str, Tensor], None]
    """Keeps a value for the next log."""

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
                self.optimizer = TrainerAdamW(named, self.optim, self._when)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            factor = partial(lr_factor, total_steps=num_training_steps, optim=self.optim)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _when(self) -> str:
        return f"step {self.state.global_step + 1}: "

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """
        Raises:
            NonFiniteError: the loss is not finite; the policy is as it was before the step.
        """
        inherited: Any = super()
        loss: Tensor = inherited.training_step(*args, **kwargs)
        self._check(loss.item(), "loss")
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        # TrainerAdamW clips inside its step; asking here would add a pass over all gradients.
        if not self.is_fsdp_enabled:
            return None
        inherited: Any = super()
        norm = inherited._get_grad_norm(model, grad_norm)
        self._check(float(norm), "norm of the gradient")
        return norm

    def _check(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise NonFiniteError(
                f"{self._when()}the {what} is {value}",
                file=self.store.root.parent,
                key="optim.lr",
                remedy="lower the learning rate, or look for numbers in data or weights that fp32 does not "
                "hold; then continue with --resume where there is a checkpoint, or start anew",
            )

    def grad_norm(self, logs: dict[str, float]) -> float:
        """Norm of the last step's gradient before clipping."""
        return float(logs.get("grad_norm", getattr(self.optimizer.optimizer, "grad_norm", 0.0)))

    def balance(self, routers: RouterRecorder, segments: Tensor, alpha: float) -> Tensor:
        """The expert-level balance loss of each MoE layer [layers], the mean over sequences; to be summed, as
        the released model does (DeepSeek-V2 eq. 23-25). Loss and load are noted.

        Args:
            routers: which have recorded the pass.
            segments: [B, S], the sequence of each token, 0 for padding.
            alpha: its weight in the loss; at 0 no gradient flows.
        """
        logits, selected = routers.routing(len(segments))
        if alpha == 0:
            logits = logits.detach()
        balance = expert_balance_loss(logits, selected, segments)
        peak = peak_load(expert_load(selected, segments, logits.shape[-1]))
        self._note("balance_loss", balance.detach().mean())
        self._note("router_peak_load", peak.mean())
        return balance

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


class StopWhenAsked(TrainerCallback):
    """Ends the run after the step in hand, with a checkpoint."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if any_process(self.stop.requested, args.device):
            control.should_save = control.should_training_stop = True
        return control


def any_process(wanted: bool, device: torch.device) -> bool:
    """Whether any of those that train wants it: a signal reaches them at different steps, and all must stop
    after the same one. Called on all."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return wanted
    votes = torch.tensor(float(wanted), device=device)
    torch.distributed.all_reduce(votes)
    return bool(votes > 0)
