"""Engines and training ranks that are played: they answer as real ones would and compute nothing."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from types import SimpleNamespace
from typing import Any

import ray

from align.cluster.rollout_group import pause
from align.model.ranks.deal import passes_of
from align.model.ranks.layout import Ranks
from align.packed import Rows, number_rows
from align.types import Completion, Group, Prompt, SyncReport, TrainBatch

WORDS = "so the answer that we were looking for is seven apples and a pear "


@ray.remote
class PlayedEngines:
    """Engines that finish groups in the order of one virtual clock.

    It goes on once the driver has given out what the last groups made room for, so that the driver never
    falls behind it.
    """

    def __init__(self, lengths: list[int], sequences: int, seconds_per_token: float) -> None:
        self.lengths, self.sequences, self.pace = lengths, sequences, seconds_per_token
        self.ids = [random.Random(0).randrange(1000, 100_000) for _ in range(4 * max(lengths))]
        self.logprobs = [-random.Random(1).random() for _ in range(4 * max(lengths))]

    def prepare(self, engines: int, groups: int, group_size: int) -> None:
        self.queues = [asyncio.Queue() for _ in range(engines)]
        self.together = pause(engines)
        self.slots = [[0.0] * self.sequences for _ in range(engines)]
        self.events: list[Any] = []
        self.order = itertools.count()
        self.now, self.fed, self.sent, self.groups, self.size = 0.0, 0, 0, groups, group_size
        self.begun = engines * (self.sequences // group_size + 1)

    async def serve(self, engine: int) -> Any:
        while (group := await self.queues[engine].get()) is not None:
            yield group

    async def feed(self, engine: int, work: list[Prompt], last: bool) -> None:
        for prompt in work:
            draw = random.Random(f"{prompt.id}")
            drawn = [draw.choice(self.lengths) for _ in range(self.size)]
            ends = []
            for length in drawn:
                begin = max(self.now, heapq.heappop(self.slots[engine]))
                ends.append(begin + length * self.pace)
                heapq.heappush(self.slots[engine], ends[-1])
            heapq.heappush(self.events, (max(ends), next(self.order), engine, prompt, drawn))
        self.fed += len(work)
        if last:
            self.queues[engine].put_nowait(None)
        else:
            self._send()

    def _send(self) -> None:
        """All that ends before the driver has answered the last groups that it fetched together."""
        while self.events and self.fed >= min(self.begun + self.sent, self.groups):
            until = self.events[0][0] + self.together
            while self.events and self.events[0][0] <= until:
                self.now, _, engine, prompt, drawn = heapq.heappop(self.events)
                self.sent += 1
                self.queues[engine].put_nowait(self._group(prompt, drawn))

    def _group(self, prompt: Prompt, drawn: list[int]) -> Group:
        def completion(index: int, length: int) -> Completion:
            at = random.randrange(len(self.ids) - length)
            text = (WORDS * (length * 4 // len(WORDS) + 1))[: length * 4] + " #### 7"
            ids, logprobs = self.ids[at : at + length], self.logprobs[at : at + length]
            return Completion(prompt.id, index, ids, logprobs, text, "stop", 0, index)

        return Group(prompt, [completion(index, length) for index, length in enumerate(drawn)])

    def seconds(self) -> float:
        """Virtual ones since the step began."""
        return self.now


class OneOfMany:
    """An engine's actor as the rollout group calls it."""

    def __init__(self, every: Any, number: int) -> None:
        self.serve = self
        self.feed = SimpleNamespace(remote=lambda _, work, last=False: every.feed.remote(number, work, last))
        self.every, self.number = every, number

    def options(self, **options: Any) -> Any:
        return SimpleNamespace(
            remote=lambda call, group_size, step: self.every.serve.options(**options).remote(self.number)
        )


@ray.remote
class PlayedRank:
    """Packs what rank 0 of many would, and answers with as many numbers."""

    def __init__(self, ranks: int, budget: int) -> None:
        self.ranks, self.budget, self.packing = Ranks(0, ranks), budget, 0.0

    def pack(self, batch: TrainBatch) -> None:
        start = time.process_time()
        passes_of(batch, self.budget, self.ranks)
        self.packing = time.process_time() - start

    def ref_logprobs(self, batch: TrainBatch) -> Rows | None:
        return number_rows(batch.rollout_logprobs)

    def update(self, batch: TrainBatch) -> dict[str, float]:
        self.pack(batch)
        return {"loss": 0.0}

    def last(self) -> float:
        return self.packing


class PlayedPolicy:
    """``align.types.Policy`` with one rank that is asked."""

    def __init__(self, rank: Any) -> None:
        self.rank = rank

    def logprobs(self, batch: TrainBatch) -> Any:
        return self.ref_logprobs(batch)

    def ref_logprobs(self, batch: TrainBatch) -> Any:
        return ray.get(self.rank.ref_logprobs.remote(ray.put(batch)))

    def update(self, batch: TrainBatch) -> dict[str, float]:
        return ray.get(self.rank.update.remote(ray.put(batch)))


class NoPush:
    version = 0

    def push(self) -> SyncReport:
        self.version += 1
        return SyncReport(self.version, 1, 1, 0.0, 0.0)
