"""The scheduler of the device: before each stage it moves what the table says.

``align/plan/residency.py`` has the table and the rules; here they are carried out and timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, nullcontext
from typing import Protocol

from align.errors import EngineError
from align.plan.residency import PARTS, Household, Move, Part, find, transitions
from align.report.timing import StageClock


class Mover(Protocol):
    """A process that holds movable parts."""

    def sleep(self, part: Part) -> None:
        """Take the part off the device."""
        ...

    def wake(self, part: Part) -> None:
        """Put the part on the device."""
        ...


class Residency:
    """Stages that find on the device what the table gives them.

    Usage: ``with residency.stage("rollout"): …``, and ``residency.want("rollout")`` for work outside of
    a step, which is not timed.

    Invariant: what is on the device is what was last wanted. Leaving a stage, also by an exception,
    moves nothing (unless it lies within another, which then gets its parts back). When a move fails,
    no stage begins any more: what is on the device is then unknown.
    """

    def __init__(
        self,
        household: Household,
        movers: Mapping[Part, Mover],
        now: Set[Part],
        peak_gib: Callable[[], float] | None = None,
    ) -> None:
        """
        Args:
            household: the run's parts.
            movers: who moves a part; one without a mover moves by itself when it is used.
            now: what is on the device.
            peak_gib: peak memory of all processes together since it was last called, GiB; without it
                no peaks are measured.
        """
        self._household, self._movers, self._now = household, movers, frozenset(now)
        self._peak_gib = peak_gib
        self._clock = StageClock()
        self._open: list[str] = []
        self._measured: str | None = None
        self._fresh = False
        self._peaks: dict[str, float] = {}
        self._broken: EngineError | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Bring what the stage uses, send away what it does not, count its seconds and its peak.

        Raises:
            EngineError: the table has no such stage, or a move failed, now or before.
        """
        find(name)
        with self._clock.stage(name):
            self._note_peak()
            self._open.append(name)
            try:
                self._enter(name)
                yield
                self._note_peak()
            finally:
                self._measured = None
                self._open.pop()
        if self._open:
            self._enter(self._open[-1])

    def take(self) -> dict[str, float]:
        """Seconds by stage since last asked; those of all moves together are ``move``."""
        self._fresh = False  # what comes between two steps belongs to no stage
        return self._clock.take()

    def metrics(self) -> dict[str, float]:
        """``memory/<stage>_gib``: the peak of each stage that uses the device, since last asked."""
        peaks, self._peaks = self._peaks, {}
        return {f"memory/{name}_gib": peak for name, peak in peaks.items()}

    def describe(self) -> str:
        """One line for the log."""
        moving = [part for part in PARTS if part in self._household.movable]
        staying = [part for part in PARTS if part in self._household.present - self._household.movable]
        return (
            f"on the device when used: {', '.join(moving) or 'none'}; always: {', '.join(staying) or 'none'}"
        )

    @property
    def now(self) -> frozenset[Part]:
        """What is on the device."""
        return self._now

    def want(self, name: str) -> None:
        """Make the device what the table says of a stage.

        Raises:
            EngineError: as :meth:`stage`.
        """
        moves = transitions(self._now, self._household.wanted(name, self._now))
        if self._broken is not None:
            raise self._broken
        if not moves:
            return
        self._note_peak()  # a mover starts a new peak
        with self._clock.stage("move") if self._open else nullcontext():
            for move in moves:
                self._carry_out(move, name)

    def _enter(self, name: str) -> None:
        self.want(name)
        if self._peak_gib is not None and find(name).uses & self._household.present:
            if not self._fresh:
                self._peak_gib()
            self._fresh, self._measured = True, name

    def _carry_out(self, move: Move, stage: str) -> None:
        mover = self._movers.get(move.part)
        try:
            if mover is not None:
                (mover.sleep if move.verb == "sleep" else mover.wake)(move.part)
        except BaseException as error:
            self._broken = EngineError(
                f"{move.part} could not {move.verb} for the stage {stage!r}: {error}",
                key="cluster.residency",
                remedy="continue from the last checkpoint with --resume; where everything fits at once, "
                "cluster.residency=resident moves nothing",
            )
            if isinstance(error, Exception):
                raise self._broken from error
            raise
        self._now = self._now - {move.part} if move.verb == "sleep" else self._now | {move.part}

    def _note_peak(self) -> None:
        if self._peak_gib is not None and self._measured is not None:
            peak = self._peak_gib()
            self._peaks[self._measured] = max(peak, self._peaks.get(self._measured, 0.0))
