"""TRL's side of the training stage, and what both sides are measured with."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.types import TrainBatch

BETA = 0.04
Turn = dict[str, float]


@contextmanager
def timed(spent: Turn, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[name] = time.perf_counter() - start


class Fed:
    """Counts the tokens that go through a model's layers, as ``with Fed(model) as fed: …; fed.tokens``."""

    def __init__(self, model: Any) -> None:
        self.embedding = model.get_input_embeddings()
        self.tokens = 0.0

    def __enter__(self) -> Fed:
        self._hook = self.embedding.register_forward_hook(self._count)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _count(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.tokens += inputs[0].numel()


def trl_trainer(args: argparse.Namespace, folder: Path, tokenizer: Any) -> Any:
    """TRL's trainer, at the point where it has a batch."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    class Prepared(GRPOTrainer):
        def _prepare_inputs(self, inputs):
            return inputs

    trainer = Prepared(
        model=args.model,
        reward_funcs=lambda completions, **columns: [0.0] * len(completions),
        args=GRPOConfig(
            output_dir=str(folder / "trl"),
            model_init_kwargs={"dtype": "bfloat16"},
            per_device_train_batch_size=args.trl_batch,
            gradient_accumulation_steps=args.prompts * args.group // args.trl_batch,
            num_generations=args.group,
            max_completion_length=args.tokens,
            beta=BETA,
            loss_type="grpo",
            use_bias_correction_kl=False,
            learning_rate=1e-6,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": "-"}]),
        processing_class=tokenizer,
    )
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    return trainer


def trl_batches(args: argparse.Namespace, batch: TrainBatch, padding: int) -> list[dict[str, Any]]:
    """The batch in TRL's layout, prompts padded on the left to the longest, in its micro-batches."""
    width = max(map(len, batch.prompt_tokens))
    prompts = torch.tensor([[padding] * (width - len(p)) + p for p in batch.prompt_tokens])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch.prompt_tokens])
    answers = torch.tensor(batch.completion_tokens)
    rows = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))  # TRL shuffles too
    return [
        {
            "rows": part,
            "prompt_ids": prompts[part],
            "prompt_mask": mask[part],
            "completion_ids": answers[part],
            "completion_mask": torch.ones_like(answers[part]),
            "advantages": torch.tensor(batch.advantages)[part],
            "num_items_in_batch": torch.tensor(answers.numel()),
        }
        for part in rows.split(args.trl_batch)
    ]


def trl_turn(
    trainer: Any, prepared: Sequence[dict[str, Any]], batch: TrainBatch, *, checkpointing: bool
) -> Turn:
    """Reference pass, loss with backward, clipping and optimiser."""
    model, spent, fed = trainer.model, {}, Fed(trainer.model)
    with timed(spent, "reference"), torch.no_grad():
        for inputs in prepared:
            inputs["ref_per_token_logps"], _, _ = trainer._get_per_token_logps_and_entropies(
                trainer.ref_model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
                inputs["completion_ids"].shape[1],
            )
    if checkpointing:
        model.gradient_checkpointing_enable()
    else:
        model.gradient_checkpointing_disable()
    with fed, timed(spent, "training"):
        for inputs in prepared:
            trainer.training_step(model, dict(inputs), inputs["num_items_in_batch"])
    with timed(spent, "optimizer"):
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        trainer.optimizer.step()
        model.zero_grad()
    return spent | {"tokens": fed.tokens, "norm": float(norm)}
