"""The policy under training: weights, reference, optimiser. No Ray, no engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from align.algo.finite import check_loss
from align.algo.objective import MicroBatch, grpo_objective, mean_metrics
from align.algo.schedule import lr_factor
from align.config.recipe import GrpoRecipe
from align.errors import NonFiniteError
from align.model.attention.batching import packed_size
from align.model.build import build_policy
from align.model.experts.router_replay import PolicyRouting
from align.model.files.hf_stream import hf_stream
from align.model.files.load import load_tokenizer
from align.model.files.save import save_model
from align.model.logprobs import completion_logprobs
from align.model.optimizer import MasterAdamW
from align.model.ranks.deal import Pass, micro_batches_of, passes_of
from align.model.ranks.layout import Ranks
from align.model.ranks.store import files, read_parts, write_parts
from align.model.ranks.together import barrier, from_all, raise_together
from align.types import TrainBatch
from align.weights.modes import open_weights


class PolicyModel:
    """The MoE (or dense) policy and everything that updates it.

    Usage: ``logprobs`` / ``ref_logprobs`` fill a batch, ``update`` takes one optimiser step,
    ``weights`` streams the result to an engine.
    """

    def __init__(
        self,
        recipe: GrpoRecipe,
        *,
        device: str,
        chat_template: str | None = None,
        ranks: Ranks = Ranks(),  # noqa: B008
    ) -> None:
        """
        Args:
            recipe: policy, algorithm, optimiser and sampling temperature are read.
            device: ``cpu`` or ``cuda``.
            chat_template: saved with the tokenizer; default: the tokenizer's own.
            ranks: which of how many processes this is, connected by torch's default process group. Of several
                every method is called on all at the same time, with the same arguments, and gives the same.
        """
        self.recipe = recipe
        self.ranks = ranks
        self.device = device
        self.updates = 0
        grpo = recipe.grpo
        self.total_updates = grpo.steps * grpo.epochs * grpo.minibatches
        self.tokenizer = load_tokenizer(recipe.policy)
        if chat_template is not None:
            self.tokenizer.chat_template = chat_template
        self.dtype: torch.dtype = getattr(torch, recipe.policy.dtype)
        self.model, self.reference = build_policy(recipe, device, ranks)
        self.optimizer = MasterAdamW(self.model.named_parameters(), recipe.optim, ranks)
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
            for rows, counts in self._passes(batch):
                part = batch.select(rows)
                with routing(part):
                    out = self._forward(model, part)
                for row, logprobs, tokens in zip(rows, out.logprobs_BT, part.completion_tokens, strict=True):
                    scores[row] = logprobs[: len(tokens)].tolist() if counts else scores[row]
        every = from_all(scores, self.ranks)
        return [next((own[row] for own in every if own[row]), []) for row in range(len(batch))]

    def update(self, batch: TrainBatch) -> dict[str, float]:
        """One optimiser step on the whole batch, in micro-batches of bounded tokens.

        Raises:
            NonFiniteError: loss or gradient is not finite; nothing has changed then.

        An empty batch reports nothing and changes nothing but the place in the learning-rate schedule.
        """
        if not len(batch):
            self.updates += 1
            return {}
        sums = []
        for rows, counts in self._passes(batch):
            part = batch.select(rows)
            if not counts:
                part.token_weights = [0.0] * len(part)
            with self.routing.update_pass(part, counts=counts):
                inputs = self._objective_inputs(part)
                loss, each = grpo_objective(inputs, self.recipe.grpo)
                self._check(each.sums["loss"], inputs, part)
                loss.backward()
            sums += [each] if counts else []
        lr = self.recipe.optim.lr * lr_factor(self.updates, self.total_updates, self.recipe.optim)
        norm = self.optimizer.step(lr, f"step {self.step}: ")
        self.updates += 1
        lengths = [len(completion) for completion in batch.completion_tokens]
        size = packed_size(batch.prompt_tokens, lengths, self._micro_batches(batch))
        return (
            mean_metrics([each for own in from_all(sums, self.ranks) for each in own])
            | self.routing.metrics(self.ranks)
            | {
                "train/grad_norm": norm,
                "train/lr": lr,
                "train/fed_tokens": float(size.fed),
                "train/padding_share": size.padding,
                "train/prompt_passes": size.prompt_passes,
            }
        )

    @property
    def step(self) -> int:
        """The step that the next update belongs to, from 1."""
        return self.updates // (self.recipe.grpo.epochs * self.recipe.grpo.minibatches) + 1

    def _check(self, loss: float, inputs: MicroBatch, part: TrainBatch) -> None:
        found = None
        try:
            check_loss(loss, inputs, part.prompt_ids, self.step)
        except NonFiniteError as error:
            found = error
        try:
            raise_together(found, self.ranks)
        except NonFiniteError:
            self.optimizer.discard()  # of the micro-batches before
            raise

    def _passes(self, batch: TrainBatch) -> list[Pass]:
        """The micro-batches of this rank."""
        return passes_of(batch, self.recipe.grpo.pass_tokens(self.device), self.ranks)

    def _micro_batches(self, batch: TrainBatch) -> list[list[int]]:
        """Those of all ranks."""
        return micro_batches_of(batch, self.recipe.grpo.pass_tokens(self.device), self.ranks)

    def _forward(self, model: Any, part: TrainBatch) -> Any:
        temperature = self.recipe.rollout.temperature
        compute = model.completions if self.ranks.world > 1 else partial(completion_logprobs, model)
        return compute(part.prompt_tokens, part.completion_tokens, temperature=temperature)

    def _objective_inputs(self, part: TrainBatch) -> MicroBatch:
        out = self._forward(self.model, part)
        width = out.mask_BT.shape[1]

        def padded(column: Sequence[Sequence[float]] | None) -> Tensor | None:
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
        compute = self.model.completions if self.ranks.world > 1 else partial(completion_logprobs, self.model)
        with torch.no_grad():
            out = compute([token_ids[:1]], [token_ids[1:]])
        return [float(value) for value in out.logprobs_BT[0]]

    def weights(self, *, changed_only: bool = False) -> Iterator[tuple[str, Tensor]]:
        """The current weights under their checkpoint names: all, or those that training changes."""
        return hf_stream(self.model, changed_only=changed_only, dtype=self.dtype)

    def save_model(self, folder: Path) -> None:
        """A directory that transformers and vLLM load unchanged."""
        save_model(self.model, self.tokenizer, folder, dtype=self.dtype, write=self.ranks.rank == 0)
        barrier(self.ranks)

    def save(self, folder: Path) -> None:
        """Everything needed to continue: model, master weights, moments, random state of every rank. All
        write into the same folder.

        Raises:
            NonFiniteError: a weight or moment is not finite; nothing is written then.
        """
        raise_together(self.optimizer.fault(), self.ranks)
        self.save_model(folder / "model")
        folder.mkdir(parents=True, exist_ok=True)
        write_parts(self.optimizer.state(), self.optimizer.places(), folder, "optimizer", self.ranks)
        write_parts({"cpu": torch.get_rng_state()}, {}, folder, "rng", self.ranks)
        if self.ranks.rank == 0:
            (folder / "policy.json").write_text(json.dumps({"updates": self.updates}))
            open_weights(folder, like="policy.json")
        barrier(self.ranks)

    def load(self, folder: Path) -> None:
        """Continue from :meth:`save`, by any number of ranks.

        Raises:
            CheckpointError: files of some rank are missing.
        """
        state = read_parts(folder, "optimizer", self.optimizer.places(), self.device)
        self.optimizer.load_state(state)
        written = list(files(folder, "rng"))
        torch.set_rng_state(load_file(written[self.ranks.rank % len(written)])["cpu"])
        self.updates = json.loads((folder / "policy.json").read_text())["updates"]


def _pad(rows: Sequence[Sequence[float]], width: int, device: str) -> Tensor:
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], device=device)
