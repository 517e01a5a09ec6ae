"""The policy under training: weights, reference, optimiser. No Ray, no engine."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from align.algo.objective import MicroBatch, grpo_objective, mean_metrics
from align.algo.schedule import lr_factor
from align.config.recipe import GrpoRecipe
from align.model.batching import packed_batches, packed_size
from align.model.compiled import compile_layers
from align.model.dropout import disable_dropout
from align.model.hf_stream import hf_stream
from align.model.load import load_model, load_tokenizer
from align.model.logprobs import completion_logprobs
from align.model.lora import add_lora
from align.model.optimizer import MasterAdamW
from align.model.router_replay import PolicyRouting
from align.model.save import save_model
from align.model.shared_prefix import use_shared_prefix
from align.seed import derive_seed
from align.types import TrainBatch


class PolicyModel:
    """The MoE (or dense) policy and everything that updates it.

    Usage: ``logprobs`` / ``ref_logprobs`` fill a batch, ``update`` takes one optimiser step,
    ``weights`` streams the result to an engine.
    """

    def __init__(self, recipe: GrpoRecipe, *, device: str, chat_template: str | None = None) -> None:
        """
        Args:
            recipe: policy, algorithm, optimiser and sampling temperature are read.
            device: ``cpu`` or ``cuda``.
            chat_template: saved with the tokenizer; default: the tokenizer's own.
        """
        self.recipe = recipe
        self.device = device
        self.updates = 0
        grpo = recipe.grpo
        self.total_updates = grpo.steps * grpo.epochs * grpo.minibatches
        self.tokenizer = load_tokenizer(recipe.policy)
        if chat_template is not None:
            self.tokenizer.chat_template = chat_template
        model: Any = load_model(recipe.policy, seed=recipe.seed, device=device)
        use_shared_prefix(model)
        disable_dropout(model)  # the engine that samples has none
        self.reference: Any = None
        if recipe.policy.lora:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(recipe.seed, "adapters"))
                model = add_lora(model, recipe.policy.lora)
        elif grpo.beta > 0:
            self.reference = copy.deepcopy(model).requires_grad_(False).eval()
        self.model = model.train()
        for each in (self.model, self.reference):
            if each is not None:
                compile_layers(each, recipe.policy.compile, on_cpu=device == "cpu")
        self.optimizer = MasterAdamW(self.model.named_parameters(), recipe.optim)
        self.routing = PolicyRouting(self.model, grpo.replay)

    def logprobs(self, batch: TrainBatch) -> list[list[float]]:
        """log π_θ of every completion token: N lists of T_i floats, nats."""
        return self._score(self.model, batch, self.routing.old_pass)

    def ref_logprobs(self, batch: TrainBatch) -> list[list[float]]:
        """log π_ref of every completion token: N lists of T_i floats, nats."""
        with self._reference() as model:
            return self._score(model, batch, lambda part: nullcontext())

    @contextmanager
    def _reference(self) -> Iterator[Any]:
        if self.reference is not None:
            yield self.reference
            return
        with self.model.disable_adapter():
            yield self.model

    def _score(
        self, model: Any, batch: TrainBatch, routing: Callable[[TrainBatch], AbstractContextManager[Any]]
    ) -> list[list[float]]:
        scores: list[list[float]] = [[] for _ in range(len(batch))]
        with torch.no_grad():
            for rows in self._micro_batches(batch):
                part = batch.select(rows)
                with routing(part):
                    out = self._forward(model, part)
                for row, logprobs, tokens in zip(rows, out.logprobs_BT, part.completion_tokens, strict=True):
                    scores[row] = logprobs[: len(tokens)].tolist()
        return scores

    def update(self, batch: TrainBatch) -> dict[str, float]:
        """One optimiser step on the whole batch, in micro-batches of bounded tokens.

        An empty batch reports nothing and changes nothing but the place in the learning-rate schedule.
        """
        if not len(batch):
            self.updates += 1
            return {}
        sums = []
        micro_batches = self._micro_batches(batch)
        for rows in micro_batches:
            part = batch.select(rows)
            with self.routing.update_pass(part):
                loss, each = grpo_objective(self._objective_inputs(part), self.recipe.grpo)
                loss.backward()
            sums.append(each)
        lr = self.recipe.optim.lr * lr_factor(self.updates, self.total_updates, self.recipe.optim)
        norm = self.optimizer.step(lr)
        self.updates += 1
        lengths = [len(completion) for completion in batch.completion_tokens]
        size = packed_size(batch.prompt_tokens, lengths, micro_batches)
        return (
            mean_metrics(sums)
            | self.routing.metrics()
            | {
                "train/grad_norm": norm,
                "train/lr": lr,
                "train/fed_tokens": float(size.fed),
                "train/padding_share": size.padding,
                "train/prompt_passes": size.prompt_passes,
            }
        )

    def _micro_batches(self, batch: TrainBatch) -> list[list[int]]:
        return packed_batches(
            batch.prompt_ids,
            [len(prompt) for prompt in batch.prompt_tokens],
            [len(completion) for completion in batch.completion_tokens],
            self.recipe.grpo.pass_tokens(self.device),
        )

    def _forward(self, model: Any, part: TrainBatch) -> Any:
        temperature = self.recipe.rollout.temperature
        return completion_logprobs(model, part.prompt_tokens, part.completion_tokens, temperature=temperature)

    def _objective_inputs(self, part: TrainBatch) -> MicroBatch:
        out = self._forward(self.model, part)
        width = out.mask_BT.shape[1]

        def padded(column: list[list[float]] | None) -> Tensor | None:
            return None if column is None else _pad(column, width, self.device)

        return MicroBatch(
            logprobs_BT=out.logprobs_BT,
            entropy_BT=out.entropy_BT,
            mask_BT=out.mask_BT,
            rollout_logprobs_BT=_pad(part.rollout_logprobs, width, self.device),
            old_logprobs_BT=padded(part.old_logprobs),
            ref_logprobs_BT=padded(part.ref_logprobs),
            advantages_B=torch.tensor(part.advantages, device=self.device),
            token_weights_B=torch.tensor(part.token_weights, device=self.device),
            token_advantages_BT=padded(part.token_advantages),
        )

    def probe(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probability of each token but the first, nats, at temperature 1."""
        with torch.no_grad():
            out = completion_logprobs(self.model, [token_ids[:1]], [token_ids[1:]])
        return [float(value) for value in out.logprobs_BT[0]]

    def weights(self, *, changed_only: bool = False) -> Iterator[tuple[str, Tensor]]:
        """The current weights under their checkpoint names: all, or those that training changes."""
        return hf_stream(self.model, changed_only=changed_only)

    def save_model(self, folder: Path) -> None:
        """A directory that transformers and vLLM load unchanged."""
        save_model(self.model, self.tokenizer, folder)

    def save(self, folder: Path) -> None:
        """Everything needed to continue: model, master weights, moments, random state."""
        self.save_model(folder / "model")
        save_file(self.optimizer.state(), folder / "optimizer.safetensors")
        save_file({"cpu": torch.get_rng_state()}, folder / "rng.safetensors")
        (folder / "policy.json").write_text(json.dumps({"updates": self.updates}))

    def load(self, folder: Path) -> None:
        """Continue from :meth:`save`."""
        self.optimizer.load_state(load_file(folder / "optimizer.safetensors", device=self.device))
        torch.set_rng_state(load_file(folder / "rng.safetensors")["cpu"])
        self.updates = json.loads((folder / "policy.json").read_text())["updates"]


def _pad(rows: list[list[float]], width: int, device: str) -> Tensor:
    return torch.tensor([row + [0.0] * (width - len(row)) for row in rows], device=device)
