"""A reward model in a process of its own, in the bundle of policy and engine.

The driver asks one process at a time, so whoever computes has the device and all cores to itself. On
a GPU the weights lie in main memory except while the model scores, so that several reward models and
the policy take turns; on a CPU they stay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import ray
import torch

from align.cluster.memory import PeakMemory
from align.cluster.placement import Placement, Seat
from align.cluster.remote import wait
from align.config.rewards import RewardsConfig
from align.dataset.preference.tokens import cut
from align.errors import EngineError, ModelError
from align.model.score.scorer import Scorer, ScorerFiles, TorchScorer, open_scorer, term_key
from align.reward.bank.calibration import trained_length
from align.reward.contract import Sample
from align.types import Outcome

Backend = Literal["auto", "torch", "vllm"]
WAKE_SECONDS = 60
"""A call may take that on top of its samples' share: weights come back to the device."""


@ray.remote
class ScorerActor:
    """One reward model on one back end."""

    def __init__(self, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = device
        self.memory = PeakMemory(device)

    def load(self, model: str, backend: Backend, resident: bool, key: str, file: str | Path | None) -> None:
        """Load the weights. Not in ``__init__``: Ray hides what goes wrong there.

        Raises:
            ModelError: no usable reward model at ``model``.
            RewardError: its calibration.json cannot be read.
            EngineError: vLLM refuses it.
        """
        self.files = open_scorer(model, file=file, key=key)
        self.trained_length = trained_length(self.files.source, key=key)
        self.scorer = _scorer(self.files, backend, self.device)
        self.resident = resident
        if not resident:
            self.sleep()

    def wake(self) -> None:
        """Put the weights on the device."""
        self.scorer.wake()

    def sleep(self) -> None:
        """Free the device."""
        self.scorer.sleep()

    def score(self, samples: Sequence[Sample]) -> list[Outcome]:
        """One outcome a sample, all samples in one go; afterwards the device is free, unless resident."""
        self.wake()
        try:
            return score_samples(self.files, self.scorer, samples, self.trained_length)
        finally:
            if not self.resident:
                self.sleep()

    def memory_gib(self) -> float:
        """Largest resident size of this process so far, GiB."""
        return self.memory.largest_gib()

    def take_peak_gib(self) -> float:
        return self.memory.take_gib()


def _scorer(files: ScorerFiles, backend: Backend, device: str) -> Scorer:
    """The back end; ``auto`` is torch (``docs/decisions/0006-scorers.md``)."""
    if backend == "vllm":
        from align.rollout.pooling import PoolingScorer

        return PoolingScorer(files.source, device=device, max_tokens=files.max_tokens, moe=files.moe)
    return TorchScorer(files, device=device)


def score_samples(
    files: ScorerFiles, scorer: Scorer, samples: Sequence[Sample], trained: int | None = None
) -> list[Outcome]:
    """Render, score and judge.

    Args:
        files: of the reward model.
        scorer: its back end.
        samples: completions of any prompts.
        trained: tokens that the model was trained to read. Longer conversations lose their beginning, as
            they did in training; each by itself, so that no score depends on the other samples.

    Returns:
        One outcome a sample, in order: a finite score, or an error for a conversation that the
        template refuses, that is longer than the model can read, or whose score is not finite.
        With ``trained``, the part ``cut`` is 1 where the conversation was cut. Seconds are the call's,
        shared out evenly.
    """
    start = time.perf_counter()
    rows: dict[int, list[int]] = {}
    failures: dict[int, str] = {}
    shortened: set[int] = set()
    for i, sample in enumerate(samples):
        try:
            tokens = files.encode(sample.prompt, sample.completion)
        except ModelError as error:
            failures[i] = error.message
            continue
        if trained and len(tokens) > trained:
            (tokens,) = cut([tokens], trained, files.tokenizer.bos_token_id)
            shortened.add(i)
        if len(tokens) > scorer.max_tokens:
            failures[i] = f"{len(tokens):,} tokens; the reward model reads at most {scorer.max_tokens:,}"
        else:
            rows[i] = tokens
    prompts = [str(samples[i].prompt) for i in rows]
    scores = dict(zip(rows, scorer.score(list(rows.values()), prompts) if rows else [], strict=True))
    seconds = (time.perf_counter() - start) / max(len(samples), 1)
    outcomes = []
    for i in range(len(samples)):
        if i in failures:
            outcomes.append(Outcome("error", detail=failures[i], seconds=seconds))
        elif not math.isfinite(scores[i]):
            outcomes.append(Outcome("error", detail=f"the reward model gave {scores[i]}", seconds=seconds))
        else:
            parts = {"cut": float(i in shortened)} if trained else {}
            outcomes.append(Outcome("ok", scores[i], parts, seconds=seconds))
    return outcomes


class ScorerClient:
    """The actor as the reward pool sees it: a callable from samples to outcomes, with a limit on its time."""

    def __init__(self, actor: Any, name: str, timeout: float) -> None:
        """Args:
        actor: a loaded ScorerActor.
        name: of the reward term, for messages.
        timeout: seconds that a call may take for each of its samples.
        """
        self.actor = actor
        self.process = f"reward model {name!r}"
        self.timeout = timeout

    @classmethod
    def start(
        cls,
        seat: Seat,
        name: str,
        model: str,
        *,
        backend: Backend = "auto",
        resident: bool = False,
        key: str = "model",
        file: str | Path | None = None,
        timeout: float = 10.0,
    ) -> ScorerClient:
        """Start the actor in its seat and wait until its model is loaded.

        Args:
            seat: shared with policy and engine.
            name: of the reward term.
            model: model directory, run directory or hub id.
            backend: ``auto``, ``torch`` or ``vllm``.
            resident: the weights stay on the device between calls.
            key: the recipe's key that names the model, for messages.
            file: the recipe, for messages.
            timeout: seconds that a call may take for each of its samples.

        Raises:
            ModelError: no usable reward model at ``model``.
            RewardError: its calibration.json cannot be read.
            EngineError: vLLM refuses it, or the process died.
        """
        make: Any = ScorerActor.options(**seat.options())  # type: ignore[attr-defined]
        client = cls(make.remote(seat.device, seat.threads), name, timeout)
        wait(client.actor.load.remote(model, backend, resident, key, file), client.process)
        return client

    def __call__(self, samples: Sequence[Sample]) -> list[Outcome]:
        """One outcome a sample.

        Raises:
            EngineError: the process died, or is stuck: it is ended then.
        """
        limit = WAKE_SECONDS + self.timeout * len(samples)
        try:
            return wait(self.actor.score.remote(list(samples)), self.process, limit)
        except EngineError:
            ray.kill(self.actor)
            raise

    def wake(self) -> None:
        """Put the weights on the device ahead of a call."""
        wait(self.actor.wake.remote(), self.process, WAKE_SECONDS)

    def sleep(self) -> None:
        """Free the device."""
        wait(self.actor.sleep.remote(), self.process, WAKE_SECONDS)

    def take_peak_gib(self) -> float:
        """Peak memory since last asked, GiB."""
        return wait(self.actor.take_peak_gib.remote(), self.process)

    def memory_gib(self) -> float:
        """Largest resident size of the process so far, GiB."""
        return wait(self.actor.memory_gib.remote(), self.process)


def start_scorers(
    placement: Placement, config: RewardsConfig, *, resident: bool = False, file: str | Path | None = None
) -> dict[str, ScorerClient]:
    """Start the reward models of a recipe, one after the other, by term name.

    Args:
        placement: shared with policy and engine.
        config: the section ``rewards``.
        resident: their weights stay on the device between calls.
        file: the recipe, for messages.

    Raises:
        ModelError, RewardError, EngineError: as :meth:`ScorerClient.start`.
    """
    models = {name: term for name, term in config.terms.items() if term.model is not None}
    return {
        name: ScorerClient.start(
            placement.scorer(number),
            name,
            str(term.model),
            backend=term.backend,
            resident=resident,
            key=term_key(name),
            file=file,
            timeout=config.timeout,
        )
        for number, (name, term) in enumerate(models.items())
    }
