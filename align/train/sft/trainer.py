"""TRL's SFTTrainer with what align adds: balance loss, optimiser, schedule, checkpoints, metrics."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor
from trl import SFTConfig, SFTTrainer

from align.checkpoint.store import CheckpointStore
from align.config.recipe import SftRecipe
from align.model.attention import flat_rows
from align.model.experts.routers import RouterRecorder, find_routers
from align.report.reporter import Reporter
from align.train.interrupt import StopRequest
from align.train.sft.batches import IGNORED, flatten
from align.train.sft.head import use_cpu_head
from align.train.trl.stored_trainer import StopWhenAsked, StoredTrainer
from align.types import StepStats


class PolicyTrainer(StoredTrainer, SFTTrainer):
    """One supervised fine-tuning run.

    Loss, loop, distribution and resuming are TRL's and Trainer's. Added: the expert-level balance
    loss (summed over MoE layers, as the released model does; DeepSeek-V2 eq. 23), AdamW on fp32
    master weights, align's schedules, checkpoint store and reporter.

    Args:
        recipe: the recipe.
        model: the policy, in a peft wrapper under LoRA.
        args: see :func:`align.train.sft.run.trainer_arguments`.
        store: where checkpoints go.
        reporter: None on all ranks but the first.
        stop: asked after every step.
        **parts: ``train_dataset``, ``eval_dataset``, ``data_collator``, ``processing_class``.
    """

    def __init__(
        self,
        recipe: SftRecipe,
        model: Any,
        args: SFTConfig,
        *,
        store: CheckpointStore,
        reporter: Reporter | None,
        stop: StopRequest,
        **parts: Any,
    ) -> None:
        self.recipe, self.optim = recipe, recipe.optim
        self.store = store
        self.reporter = reporter
        self.routers: RouterRecorder | None = None
        if recipe.sft.balance_alpha > 0 or find_routers(model):
            self.routers = RouterRecorder(model)
        super().__init__(model=model, args=args, callbacks=[StopWhenAsked(stop)], **parts)
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        if args.use_cpu:
            use_cpu_head(base)
        self.flat = base.config._attn_implementation == flat_rows.NAME
        """Whether a batch is computed as one row without padding."""
        self.mark = time.perf_counter()

    # --- loss -------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        segments = inputs.pop("segments")
        if self.flat:
            inputs, segments = flatten(inputs, segments)
        self._count(inputs, segments)
        if self.routers is None:
            return super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        with self.routers.record():
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        alpha = self.recipe.sft.balance_alpha
        balance = self.balance(self.routers, segments, alpha)
        if alpha == 0 or not model.training:
            return loss
        # The token loss is scaled for accumulation already; this one is a mean over sequences.
        return loss + alpha * balance.sum() / self.current_gradient_accumulation_steps

    def _count(self, inputs: dict[str, Any], segments: Tensor) -> None:
        self._note("tokens", (segments > 0).sum())
        self._note("trained_tokens", (inputs["labels"] != IGNORED).sum())
        self._note("padding", (segments == 0).float().mean())

    def _note(self, name: str, value: Tensor) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)

    # --- metrics ----------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        notes = {name: [float(value) for value in values] for name, values in self._metrics[mode].items()}
        self._metrics[mode].clear()
        means = {name: sum(values) / len(values) for name, values in notes.items() if values}
        if self.reporter is None:
            return
        if "loss" in logs:
            self._log_step(self.reporter, logs, notes, means)
        elif "eval_loss" in logs:
            values = {"loss": logs["eval_loss"], "token_accuracy": means["mean_token_accuracy"]}
            self.reporter.evaluation(self.state.global_step, values)

    def _log_step(
        self,
        reporter: Reporter,
        logs: dict[str, float],
        notes: dict[str, list[float]],
        means: dict[str, float],
    ) -> None:
        step, loss = self.state.global_step, logs["loss"]
        seconds = time.perf_counter() - self.mark
        metrics = {
            "train/loss": loss,
            "train/lr": logs["learning_rate"],
            "train/grad_norm": self.grad_norm(logs),
            "train/entropy": means["entropy"],
            "train/token_accuracy": means["mean_token_accuracy"],
            "train/tokens": sum(notes["tokens"]),
            "train/trained_tokens": sum(notes["trained_tokens"]),
            "train/padding_share": means["padding"],
            "train/tokens_per_second": sum(notes["tokens"]) / seconds,
        }
        if "balance_loss" in means:
            metrics["train/balance_loss"] = means["balance_loss"]
            metrics["router/peak_load"] = means["router_peak_load"]
        reporter.step(StepStats(step, metrics, {"train": seconds}, [], [], []))
