"""TRL's RewardTrainer with what align adds: passes by token budget, point-wise losses, balance loss,
held-out measures, and what StoredTrainer brings."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import EvalPrediction
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import RewardConfig, RewardTrainer

from align.algo.preference import pointwise_loss, wins
from align.checkpoint.store import CheckpointStore
from align.config.recipe import RewardModelRecipe
from align.model.experts.routers import RouterRecorder, find_routers
from align.model.score.head import HEAD
from align.model.score.pairs import pair_rows, pair_scores
from align.report.reporter import Reporter
from align.train.interrupt import StopRequest
from align.train.reward_model.batches import Batch, sides, split
from align.train.reward_model.held_out import Columns, HeldOut, measure
from align.train.trl.stored_trainer import StopWhenAsked, StoredTrainer
from align.types import StepStats


class RewardModelTrainer(StoredTrainer, RewardTrainer):
    """One reward-model run.

    The pairwise loss with margin and centring, the loop, distribution and resuming are TRL's and
    Trainer's.

    Args:
        recipe: the recipe.
        model: from ``load_score_model``, in a peft wrapper under LoRA.
        args: see :func:`align.train.reward_model.arguments.trainer_arguments`.
        store: where checkpoints go.
        reporter: None on all ranks but the first.
        stop: asked after every step.
        facts: metrics of the data, reported with the first step.
        **parts: ``train_dataset``, ``eval_dataset``, ``data_collator``, ``processing_class``.
    """

    def __init__(
        self,
        recipe: RewardModelRecipe,
        model: Any,
        args: RewardConfig,
        *,
        store: CheckpointStore,
        reporter: Reporter | None,
        stop: StopRequest,
        facts: dict[str, float],
        **parts: Any,
    ) -> None:
        self.recipe, self.optim = recipe, recipe.optim
        self.store, self.reporter, self.facts = store, reporter, facts
        self.routers: RouterRecorder | None = None
        if recipe.rm.balance_alpha > 0 or find_routers(model):
            self.routers = RouterRecorder(model)
        self.columns = Columns.of(parts["eval_dataset"])
        self.measured: HeldOut | None = None
        """The latest held-out measurement."""
        self._notes: dict[str, list[Tensor]] = defaultdict(list)
        callbacks = [StopWhenAsked(stop)]
        super().__init__(model=model, args=args, callbacks=callbacks, compute_metrics=self._measure, **parts)
        self.mark = time.perf_counter()

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset  # tokenised, cleaned and cut already

    # --- passes -----------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        passes = self._passes(inputs)
        rows = sum(len(index) for index, _ in passes)
        losses = []
        for number, (index, batch) in enumerate(passes):
            # FSDP would keep whole gradients on every rank until the pass that synchronises.
            at_once = self.is_fsdp_enabled or number == len(passes) - 1
            with contextlib.nullcontext() if at_once else self.accelerator.no_sync(model):
                batch["weight"] = torch.tensor(len(index) / rows)
                losses.append(super().training_step(model, batch))
        return torch.stack(losses).sum()

    def prediction_step(
        self, model: Any, inputs: Batch, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        place = inputs["place"]
        scores_BC = torch.zeros(len(place), sides(inputs))
        with torch.no_grad():
            for index, batch in self._passes(inputs):
                scores = self._scores(model, self._prepare_inputs(batch))
                scores_BC[index] = scores.view(sides(batch), -1).T.cpu()
        loss = torch.zeros((), device=place.device)  # measured over all rows, see _measure
        return loss, scores_BC.to(place.device), place

    def _passes(self, inputs: Batch) -> list[tuple[Tensor, Batch]]:
        budget = self.recipe.rm.micro_batch_tokens
        if self.args.world_size == 1:
            return split(inputs, budget)
        # All processes must make equal passes: sharded weights are gathered in each.
        alike = max(1, budget // (sides(inputs) * self.recipe.rm.max_length))
        return split(inputs, budget, alike=alike)

    def _scores(self, model: Any, batch: Batch) -> Tensor:
        """fp32 [B], of pairs [2B] with the chosen sides first."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        with self.routers.record() if self.routers else contextlib.nullcontext():
            if sides(batch) == 2 and self.args.world_size == 1:
                chosen, rejected = ids.chunk(2)
                rows = pair_rows(chosen, rejected, mask.sum(1).view(2, -1).T)
                real = rows.real_BT
                scores = pair_scores(model, rows)
            else:
                real = mask.bool()
                scores = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].float()
        self._real = real
        return scores

    # --- loss -------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        scores = self._scores(model, inputs)
        weight = inputs["weight"]
        if sides(inputs) == 2:
            outputs = SequenceClassifierOutput(logits=scores[:, None])
            asked = {"attention_mask": inputs["attention_mask"], "margin": inputs["margin"]}
            loss = super().compute_loss(lambda **_: outputs, asked)
            chosen, rejected = scores.detach().chunk(2)
            self._note("accuracy", wins(chosen, rejected))
            self._note("margin", chosen - rejected)
        else:
            kind: Any = self.recipe.rm.loss
            loss = pointwise_loss(scores, inputs["score"], kind)
        self._note("score", scores.detach())
        self._note("real", self._real)
        if self.routers is not None:
            alpha = self.recipe.rm.balance_alpha
            loss = loss + alpha * self.balance(self.routers, self._real.long(), alpha).sum()
        return loss * weight

    def _note(self, name: str, value: Tensor) -> None:
        self._notes[name].append(value.float().flatten())

    def _save_weights(self, path: Path) -> None:
        super()._save_weights(path)
        if hasattr(self.model, "peft_config"):  # whose file holds adapters alone
            head = self.model.get_base_model().score.weight.detach().contiguous()
            save_file({HEAD: head}, path / "score_head.safetensors")

    # --- metrics ----------------------------------------------------------------------------

    def _measure(self, found: EvalPrediction) -> dict[str, float]:
        scores_NC = torch.as_tensor(found.predictions).view(len(found.label_ids), -1)
        ordered_NC = torch.empty_like(scores_NC)
        ordered_NC[torch.as_tensor(found.label_ids)] = scores_NC
        self.measured = measure(self.recipe.rm.loss, ordered_NC, self.columns)
        self.measured.document["step"] = self.state.global_step
        return dict(self.measured.metrics)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._metrics["train"].clear()
            notes = {name: torch.cat(values) for name, values in self._notes.items()}
            self._notes.clear()
            if self.reporter is not None:
                self._log_step(self.reporter, logs, notes)
        elif "eval_loss" in logs and self.reporter is not None and self.measured is not None:
            self.reporter.evaluation(self.state.global_step, self.measured.metrics)

    def _log_step(self, reporter: Reporter, logs: dict[str, float], notes: dict[str, Tensor]) -> None:
        step = self.state.global_step
        seconds = time.perf_counter() - self.mark
        tokens = notes["real"].sum().item()
        metrics = {
            "train/loss": logs["loss"],
            "train/lr": logs["learning_rate"],
            "train/grad_norm": self.grad_norm(logs),
            "train/score_mean": notes["score"].mean().item(),
            "train/score_std": notes["score"].std(correction=0).item(),
            "train/tokens": tokens,
            "train/padding_share": 1 - tokens / len(notes["real"]),
            "train/tokens_per_second": tokens / seconds,
        }
        for name in ("accuracy", "margin", "balance_loss"):
            if name in notes:
                metrics[f"train/{name}"] = notes[name].mean().item()
        if "router_peak_load" in notes:
            metrics["router/peak_load"] = notes["router_peak_load"].mean().item()
        if step == 1:
            metrics |= self.facts
        reporter.step(StepStats(step, metrics, {"train": seconds}, [], [], []))
