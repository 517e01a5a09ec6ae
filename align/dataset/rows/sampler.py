"""Which prompts come next: weighted parts, seeded passes, a cursor that survives a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from align.config.data import DataConfig
from align.dataset.rows.mixture import permutation, shares
from align.errors import CheckpointError, DataError
from align.types import Prompt


class PromptSampler:
    """An endless, resumable stream of prompts.

    Each draw goes to the part that is furthest behind its share, so after any number of draws
    every part is within one prompt of it. A part is read through seeded permutations of its
    prompts, one pass after the other. A prompt that would come twice in one step (at the seam of
    two passes) waits for the next step.

    Args:
        prompts: as loaded, with their parts.
        data: the recipe's data section; the weights are read. Without weights each part counts by
            its prompts.
        seed: the run's seed. Nothing else decides the order.
    """

    def __init__(self, prompts: Sequence[Prompt], data: DataConfig, *, seed: int) -> None:
        self._parts: dict[str, list[Prompt]] = {}
        for prompt in prompts:
            self._parts.setdefault(prompt.part, []).append(prompt)
        if not self._parts:
            raise DataError("no prompts", key="data", remedy="name a source with rows in it")
        sizes = {name: len(members) for name, members in self._parts.items()}
        self._shares = shares(sizes, {name: data.parts[name].weight for name in sizes})
        self._seed = seed
        self._drawn = dict.fromkeys(sizes, 0)  # prompts given out, per part
        self._read = dict.fromkeys(sizes, 0)  # places read from the permutations, per part
        self._waiting: dict[str, list[int]] = {name: [] for name in sizes}
        self._orders: dict[str, tuple[int, list[int]]] = {}  # part → (pass, its permutation)

    def next(self, count: int) -> list[Prompt]:
        """The prompts of one step, all different.

        Raises:
            DataError: a part has fewer prompts than the step takes from it.
        """
        given: list[Prompt] = []
        used: dict[str, set[int]] = {name: set() for name in self._parts}
        total = sum(self._drawn.values())
        waiting = {name: list(places) for name, places in self._waiting.items()}
        for number in range(total + 1, total + count + 1):
            name = max(self._shares, key=lambda part: self._shares[part] * number - self._drawn[part])
            if len(used[name]) == len(self._parts[name]):
                raise DataError(
                    f"a step takes more different prompts of part {name!r} than its {len(self._parts[name])}",
                    key="grpo.prompts_per_step",
                    remedy="lower grpo.prompts_per_step or the part's weight, or give it more prompts",
                )
            place = self._draw(name, used[name], waiting[name])
            used[name].add(place)
            self._drawn[name] += 1
            given.append(self._parts[name][place])
        return given

    def _draw(self, name: str, used: set[int], waiting: list[int]) -> int:
        """The next place of a part that this step has not used; others are put off."""
        while waiting:  # put off by an earlier step
            place = waiting.pop(0)
            if place not in used:
                self._waiting[name].remove(place)
                return place
        while True:
            turn, at = divmod(self._read[name], len(self._parts[name]))
            self._read[name] += 1
            place = self._order(name, turn)[at]
            if place not in used:
                return place
            self._waiting[name].append(place)

    def _order(self, name: str, turn: int) -> list[int]:
        if self._orders.get(name, (-1, []))[0] != turn:
            self._orders[name] = (turn, permutation(name, len(self._parts[name]), turn, self._seed))
        return self._orders[name][1]

    def state(self) -> dict[str, Any]:
        """The cursor, as JSON values."""
        return {
            "seed": self._seed,
            "sizes": {name: len(prompts) for name, prompts in self._parts.items()},
            "drawn": dict(self._drawn),
            "read": dict(self._read),
            "waiting": {name: list(places) for name, places in self._waiting.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken.

        Raises:
            CheckpointError: the cursor belongs to other data or another seed.
        """
        now = self.state()
        for name, what in (("seed", "another seed"), ("sizes", "other data")):
            if state[name] != now[name]:
                raise CheckpointError(
                    f"the data cursor belongs to {what}: {state[name]} then, {now[name]} now",
                    key="data",
                    remedy="resume with the recipe and data of the checkpoint, or start a new run",
                )
        self._drawn = dict(state["drawn"])
        self._read = dict(state["read"])
        self._waiting = {name: list(places) for name, places in state["waiting"].items()}
