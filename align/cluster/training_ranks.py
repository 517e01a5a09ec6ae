"""SFT and reward models on the machines of a Ray cluster: an actor a rank, in which TRL's trainer runs as it
does under torchrun."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import ray

from align.cluster.meeting import use_interface
from align.cluster.placement import Placement, cluster
from align.cluster.remote import wait, wait_all
from align.config.recipe import TrlRecipe

TRAINER = "training"
"""In messages."""
Work = Callable[[Any, bool, Path], None]
"""What a rank does with the recipe, ``resume`` and the folder of the prepared data; a module's function."""


@ray.remote(concurrency_groups={"beside": 2})
class TrainingRank:
    """One process that trains; what it says and a wish to stop go beside the training."""

    def __init__(self) -> None:
        self.said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def meet(self) -> tuple[str, int]:
        """Address and a free port of this machine: asked of rank 0."""
        address = ray.util.get_node_ip_address()
        with socket.socket() as found:
            found.bind((address, 0))
            return address, int(found.getsockname()[1])

    def train(
        self, work: Work, recipe: Any, resume: bool, data: Mapping[str, bytes], places: Mapping[str, str]
    ) -> bool:
        """Do the work, with the environment that torchrun would give; False where it was asked to stop.

        Args:
            work: what to do.
            recipe: the run.
            resume: continue from the latest checkpoint.
            data: files of the prepared data.
            places: environment variables.
        """
        os.environ.update(places)
        use_interface(ray.util.get_node_ip_address())
        sys.stdout = _Said(self.said)
        try:
            with TemporaryDirectory(prefix="align-data-") as folder:
                for name, content in data.items():
                    file = Path(folder, name)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                work(recipe, resume, Path(folder))
            return True
        except KeyboardInterrupt:  # Ray would call it a cancelled task
            return False
        finally:
            sys.stdout = sys.__stdout__
            self.said.put(None)

    @ray.method(concurrency_group="beside")
    def lines(self) -> Iterator[str]:
        """What the training prints, until it ends."""
        while (text := self.said.get()) is not None:
            yield text

    @ray.method(concurrency_group="beside")
    def interrupt(self, ask: Callable[[], None]) -> None:
        """Hand on a wish to stop."""
        ask()


class _Said:
    """A stream whose text goes into a queue."""

    encoding, errors = "utf-8", "strict"

    def __init__(self, said: queue.SimpleQueue[str | None]) -> None:
        self._said = said

    def write(self, text: str) -> int:
        self._said.put(text)
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return False


def train_on_cluster(
    work: Work, recipe: TrlRecipe, data: Any, *, resume: bool, ask_to_stop: Callable[[], None]
) -> None:
    """Run ``work`` on ``cluster.processes`` ranks of the cluster and wait for them.

    Args:
        work: what each rank does.
        recipe: the run; its run directory must be the same on all machines.
        data: prepared once, here: ``data.save(folder)`` writes what ``work`` reads.
        resume: continue from the latest checkpoint.
        ask_to_stop: called in each rank when the user wants to stop; a module's function.

    Raises:
        EngineError: the cluster cannot be reached or has no room, or a rank died.
        KeyboardInterrupt: stopped by the user, after a checkpoint.
        AlignError: what a rank raised.
    """
    recipe = recipe.model_copy(update={"run_dir": str(recipe.directory.resolve())})
    with cluster(recipe.cluster.model_copy(update={"placement": "hybrid"})) as placement:
        seats = placement.trainers
        ranks = [TrainingRank.options(**seat.options()).remote() for seat in seats]  # type: ignore[attr-defined]
        host, port = wait(ranks[0].meet.remote(), TRAINER)
        files = ray.put(_files(data))
        printed = threading.Thread(target=_print, args=(ranks[0],), daemon=True)
        with _interrupts(ranks, ask_to_stop):
            asked = [
                actor.train.remote(work, recipe, resume, files, _environment(placement, rank, host, port))
                for rank, actor in enumerate(ranks)
            ]
            printed.start()
            ended = wait_all(asked, TRAINER)
        printed.join(10)
        if not all(ended):
            raise KeyboardInterrupt


def _environment(placement: Placement, rank: int, host: str, port: int) -> dict[str, str]:
    """What torchrun sets. Ray shows a process its own GPU alone, which is number 0 there."""
    seats = placement.trainers
    node = seats[rank].slot.node
    beside = [number for number, seat in enumerate(seats) if seat.slot.node == node]
    local = 0 if placement.device == "cuda" else beside.index(rank)
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(len(seats)),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(len(beside)),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
    }


def _files(data: Any) -> dict[str, bytes]:
    with TemporaryDirectory(prefix="align-data-") as folder:
        data.save(Path(folder))
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in sorted(Path(folder).rglob("*"))
            if file.is_file()
        }


def _print(actor: Any) -> None:
    try:
        for line in actor.lines.options(num_returns="streaming").remote():
            sys.stdout.write(ray.get(line))
            sys.stdout.flush()
    except ray.exceptions.RayError:  # the rank is gone: whoever waits for it says so
        return


@contextmanager
def _interrupts(actors: list[Any], ask_to_stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C ends the step in hand with a checkpoint, the second ends all at once."""
    asked = threading.Event()

    def hand_on(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        for actor in actors:
            actor.interrupt.remote(ask_to_stop)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, hand_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
