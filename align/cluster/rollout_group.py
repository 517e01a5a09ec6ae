"""Several rollout engines as the loop sees them: one ``align.types.Rollout``."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ray

from align.cluster.dispatch import sample_on
from align.cluster.placement import Placement, Seat
from align.cluster.remote import ActorLost, wait, wait_all
from align.cluster.rollout_actor import ENGINE, RolloutActor
from align.config.recipe import GrpoRecipe
from align.errors import EngineError
from align.plan.residency import Part
from align.rollout.feed import Work
from align.sync.manifest import Manifest
from align.sync.transport import Place
from align.types import Completion, Group, Prompt

_log = logging.getLogger(__name__)


class RolloutGroup:
    """Engines that hold the same weights.

    Usage: :meth:`spawn`, then :meth:`open`; a push before anything is sampled.
    """

    def __init__(self, placement: Placement, recipe: GrpoRecipe) -> None:
        self.placement, self.recipe = placement, recipe
        self.actors: list[Any] = []
        self._seats: dict[Any, Seat] = {}
        self._coming: dict[Any, Any] = {}
        """Engines that start while others sample, by what says that they are up."""
        self._calls = itertools.count()
        self._opening: tuple[Any, ...] = ()

    @classmethod
    def spawn(cls, placement: Placement, recipe: GrpoRecipe) -> RolloutGroup:
        """Start the actors; :meth:`open` must follow. Their imports go on meanwhile."""
        group = cls(placement, recipe)
        group.actors = [group._spawn(seat) for seat in placement.engines]
        return group

    def open(self, model: str, context: int | None = None) -> None:
        """Wait until the engines are up.

        Args:
            model: directory or hub id of configuration and tokenizer.
            context: longest prompt and answer together, tokens; default: those of training.

        Raises:
            ModelError: model or tokenizer cannot be read.
            EngineError: vLLM refuses them, or a process died.
        """
        context = context or self.recipe.grpo.max_prompt_tokens + self.recipe.rollout.max_new_tokens
        self._opening = (self.recipe, model, self.placement.device, context)
        wait_all([actor.open.remote(*self._opening) for actor in self.actors], ENGINE)

    @classmethod
    def start(
        cls, placement: Placement, recipe: GrpoRecipe, model: str, context: int | None = None
    ) -> RolloutGroup:
        """:meth:`spawn` and :meth:`open`."""
        group = cls.spawn(placement, recipe)
        group.open(model, context)
        return group

    def admit(self) -> None:
        """Take in engines that are up by now, and start one on each device that has come. They have no
        weights: a push must follow."""
        ready = (
            ray.wait(list(self._coming), num_returns=len(self._coming), timeout=0)[0] if self._coming else []
        )
        for up in ready:
            actor = self._coming.pop(up)
            try:
                wait(up, ENGINE)
            except EngineError as error:
                _log.warning("a further engine could not start: %s", error.message)
                self._give_up(actor)
            else:
                self.actors.append(actor)
                _log.info("an engine joins: there are %d now", len(self.actors))
        for seat in self.placement.arrivals.take() if self.placement.arrivals else ():
            actor = self._spawn(seat)
            self._coming[actor.open.remote(*self._opening)] = actor

    def _spawn(self, seat: Seat) -> Any:
        actor = RolloutActor.options(**seat.options()).remote()  # type: ignore[attr-defined]
        actor.get_ready.remote(self.recipe, seat.device)
        self._seats[actor] = seat
        return actor

    def sample(
        self, prompts: Sequence[Prompt], group_size: int, step: int, carried: Sequence[Group] = ()
    ) -> Iterator[Group]:
        """As ``align.types.Rollout``; an engine that dies leaves its groups to the others.

        Raises:
            EngineError: none is left, or one refused its work.
        """
        settings = self.recipe.rollout
        return sample_on(
            _Streams(self, next(self._calls)),
            [*carried, *prompts],
            group_size=group_size,
            step=step,
            longest=settings.max_new_tokens,
            sequences=settings.max_num_seqs,
        )

    def answer(self, prompts: Sequence[Prompt], max_new_tokens: int, temperature: float) -> list[Completion]:
        """One held-out completion per prompt, in order; each engine has its part of them."""
        while True:
            count = len(self.actors)
            parts = [list(prompts[i::count]) for i in range(count)]
            found = self._of_each(
                actor.answer.remote(part, max_new_tokens, temperature)
                for actor, part in zip(self.actors, parts, strict=True)
            )
            if len(found) == count:  # else one was lost, and its part with it
                answers = [iter(each) for each in found]
                return [next(answers[i % count]) for i in range(len(prompts))]

    def places(self) -> list[Place]:
        """Machine and device of each engine."""
        return self._all("where")

    def needs_all(self) -> bool:
        """The next push must be a whole one."""
        return any(self._all("needs_all"))

    def load(self, manifests: Sequence[Manifest]) -> bool:
        """Take over published weights: a manifest for each engine.

        Returns:
            False when an engine was lost: the others may hold a part of them only.
        """
        before = list(self.actors)
        asked = [actor.load.remote(manifest) for actor, manifest in zip(before, manifests, strict=True)]
        fault: Exception | None = None
        for actor, answer in zip(before, asked, strict=True):
            try:
                wait(answer, ENGINE)
            except ActorLost as error:
                self.forget(actor, error)
            except Exception as error:  # perhaps only since another one was lost
                fault = fault or error
        if len(self.actors) < len(before):
            return False
        if fault is not None:
            raise fault
        return True

    def score(self, token_ids: list[int]) -> list[list[float]]:
        """What each engine says of the tokens."""
        return self._all("score", token_ids)

    def decode_twice(self, token_ids: list[int]) -> list[tuple[list[float], list[float]]]:
        """The same of decoding and prefill."""
        return self._all("decode_twice", token_ids)

    def sleep(self, part: Part) -> None:
        """Give back the memory of ``engine`` (the weights) or ``kv_cache``."""
        self._all("sleep", part)

    def wake(self, part: Part) -> None:
        """Make it usable again."""
        self._all("wake", part)

    def memory_gib(self) -> float:
        """Largest resident size of an engine's process so far, GiB."""
        return max(self._all("memory_gib"))

    def peaks_gib(self) -> list[float]:
        """Peak memory of each since last asked, GiB."""
        return self._all("take_peak_gib")

    def forget(self, actor: Any, error: ActorLost) -> None:
        """Go on without an engine that is lost.

        Raises:
            ActorLost: it was the last.
        """
        self.actors.remove(actor)
        self._give_up(actor)
        if not self.actors:
            raise error
        _log.warning("%s; %d engines are left", error.message, len(self.actors))

    def _give_up(self, actor: Any) -> None:
        ray.kill(actor)
        seat = self._seats.pop(actor)
        if self.placement.arrivals is not None:
            self.placement.arrivals.lost(seat)

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """Call every engine, then wait for all; one that is lost gives no answer."""
        return self._of_each(getattr(actor, method).remote(*arguments) for actor in self.actors)

    def _of_each(self, asked: Iterable[Any]) -> list[Any]:
        found = []
        for actor, answer in list(zip(list(self.actors), list(asked), strict=True)):
            try:
                found.append(wait(answer, ENGINE))
            except ActorLost as error:
                self.forget(actor, error)
        return found


def pause(engines: int) -> float:
    """Seconds in which groups gather before the driver asks so many engines for them."""
    return min(0.1, engines * 1e-4)


class _Streams:
    """One call of ``sample``: a stream of groups from each engine (``align.cluster.dispatch.Engines``)."""

    def __init__(self, group: RolloutGroup, call: int) -> None:
        self._group, self._call = group, call
        self._actors: list[Any] = list(group.actors)
        self._streams: dict[int, Any] = {}
        self._ready: deque[int] = deque()
        """Engines that have a group or an error to give."""

    def begin(self, group_size: int, step: int) -> Sequence[int]:
        for number, actor in enumerate(self._actors):
            serve = actor.serve.options(num_returns="streaming")
            self._streams[number] = serve.remote(self._call, group_size, step)
        return list(self._streams)

    def feed(self, engine: int, work: Sequence[Work]) -> None:
        self._actors[engine].feed.remote(self._call, list(work))

    def next(self) -> tuple[int, Group | EngineError]:
        if not self._ready:
            self._ready.extend(self._wait())
        engine = self._ready.popleft()
        try:
            return engine, wait(next(self._streams[engine]), ENGINE)
        except ActorLost as error:
            del self._streams[engine]
            self._group.forget(self._actors[engine], error)
            return engine, error

    def _wait(self) -> list[int]:
        """Those that have something by now, after a pause in which others get there: asking costs as much
        as there are engines, and none of them needs an answer at once."""
        numbers = {stream: engine for engine, stream in self._streams.items()}
        streams = list(numbers)
        ready, _ = ray.wait(streams, num_returns=1, fetch_local=False)
        if len(streams) > 1:
            time.sleep(pause(len(streams)))
            ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
        return [numbers[stream] for stream in ready]

    def end(self) -> None:
        for engine in self._streams:
            self._actors[engine].feed.remote(self._call, [], True)
