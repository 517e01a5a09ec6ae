"""Ray: joining or starting a cluster, and where the actors go on it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from align.config.run import ClusterConfig
from align.errors import EngineError

PLACE_SECONDS = 60
"""Ray gets so long to place what a run cannot do without."""
OTHERS_SECONDS = 10
"""All engines are waited for so long once one has a place; later ones join at a step's end."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A device of the cluster: one bundle of the placement group."""

    bundle: int
    node: str
    """Ray's id of its machine."""
    address: str
    """Of its machine, as the others reach it."""
    cores: int
    """Of its machine."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one actor computes, and with how many threads."""

    device: str
    """``cpu`` or ``cuda``."""
    slot: Slot
    threads: int
    group: Any
    gpus: float = 0.1
    """Those that share a device ask for a small part of it each."""

    def options(self, **extra: Any) -> dict[str, Any]:
        """Ray options of an actor here.

        It asks for no CPU, since those of a bundle take turns. Ray sets OMP_NUM_THREADS to 1 for such actors
        unless told otherwise, which would halve everything.
        """
        return {
            "num_cpus": 0,
            "num_gpus": self.gpus if self.device == "cuda" else 0,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(self.threads)}},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self.group, placement_group_bundle_index=self.slot.bundle
            ),
            **extra,
        }


@dataclass(frozen=True, slots=True)
class Placement:
    """The seats of a run; those of one node stand together, so that neighbouring ranks are close."""

    device: str
    """``cpu`` or ``cuda``."""
    trainers: tuple[Seat, ...]
    """One a rank."""
    engines: tuple[Seat, ...]
    """One a rollout engine."""
    arrivals: Arrivals | None = None
    """Seats of further engines, where they have devices of their own."""
    scorers: tuple[Seat, ...] = ()
    """Devices that reward models have to themselves."""

    def scorer(self, number: int) -> Seat:
        """The seat of a reward model: they go round their own devices, or else the trainers'."""
        seats = self.scorers or self.trainers
        return seats[number % len(seats)]

    def with_threads(self, threads: int) -> Placement:
        """The same seats with so many threads each."""
        return replace(
            self,
            trainers=tuple(replace(each, threads=threads) for each in self.trainers),
            engines=tuple(replace(each, threads=threads) for each in self.engines),
            scorers=tuple(replace(each, threads=threads) for each in self.scorers),
        )


class Arrivals:
    """Devices for engines that the cluster has not had so far, or has no more.

    Each engine has a placement group of one bundle. Ray places it when a machine has room, and once more
    when its machine is lost; a question that is asked of the bundle is answered then.
    """

    def __init__(self, groups: Sequence[Any], device: str, threads: int | None, gpus: float) -> None:
        self._device, self._threads, self._gpus = device, threads, gpus
        self._crowd: Counter[str] = Counter()
        self._asked = {_ask(group, 0): group for group in groups}

    def take(self, beside: Sequence[Slot] = (), seconds: float = 0.0) -> list[Seat]:
        """The seats that came since last asked.

        Args:
            beside: slots of machines on which others compute at the same time.
            seconds: how long to wait for all.
        """
        asked = list(self._asked)
        answered = ray.wait(asked, num_returns=len(asked), timeout=seconds)[0] if asked else []
        found: list[tuple[Slot, Any]] = []
        for answer in answered:
            group = self._asked.pop(answer)
            try:
                found.append((Slot(0, *ray.get(answer)), group))
            except ray.exceptions.RayError:  # its machine went while it was asked
                self._asked[_ask(group, 0)] = group
        self._crowd.update(slot.node for slot in (*beside, *(slot for slot, _ in found)))
        return [
            Seat(
                self._device,
                slot,
                max(1, (self._threads or slot.cores) // self._crowd[slot.node]),
                group,
                self._gpus,
            )
            for slot, group in found
        ]

    def lost(self, seat: Seat) -> None:
        """Wait for its group to be placed again."""
        self._crowd[seat.slot.node] -= 1
        self._asked[_ask(seat.group, 0)] = seat.group


@contextmanager
def cluster(config: ClusterConfig, engines: int = 1, tensor_parallel: int = 1) -> Iterator[Placement]:
    """Join or start Ray, reserve a bundle for each device, and give all back at the end.

    Args:
        config: ranks, their devices and how they share them.
        engines: rollout engines. With devices of their own one is enough to begin; others come when there
            is room.
        tensor_parallel: devices of one engine.

    Raises:
        EngineError: no cluster at the address, or the bundles cannot be placed.
    """
    apart = config.placement == "disaggregated"
    shared = config.processes if apart else max(config.processes, engines)
    count = shared + config.reward_devices
    _join(config, count + engines if apart else count)
    groups: list[Any] = []
    try:
        device = _device(config)
        _check_tensor_parallel(tensor_parallel, device, apart=apart)
        gpus = float(tensor_parallel) if tensor_parallel > 1 else 0.1
        first = placement_group([_bundle(device, 1)] * count, strategy="PACK")
        groups.append(first)
        _wait_for(first)
        found = by_node(_slots(first, count))
        trainers = found[: config.processes]
        scorers = _seats(found[shared:], [], config.threads, device, first)  # others wait while they score
        if apart:
            wide = [placement_group([_bundle(device, tensor_parallel)]) for _ in range(engines)]
            groups += wide
            _wait_for(wide[0])
            arrivals = Arrivals(wide, device, config.threads, gpus)
            seats = tuple(arrivals.take(trainers, OTHERS_SECONDS) or arrivals.take((), PLACE_SECONDS))
            beside = [seat.slot for seat in seats]
            ranks = _seats(trainers, beside, config.threads, device, first)
            yield Placement(device, ranks, seats, arrivals, scorers)
        else:
            places = [found[i % shared] for i in range(engines)]
            yield Placement(
                device,
                _seats(trainers, [], config.threads, device, first),
                _seats(places, [], config.threads, device, first),
                scorers=scorers,
            )
    finally:
        for group in groups:
            remove_placement_group(group)
        ray.shutdown()


def _join(config: ClusterConfig, slots: int) -> None:
    cores = config.threads or os.cpu_count() or 1
    try:
        ray.init(
            address=config.ray_address,
            num_cpus=None if config.ray_address else max(cores, slots),
            include_dashboard=False if config.ray_address is None else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"Ray is not reachable: {error}",
            key="cluster.ray_address",
            remedy="start it with `ray start --head`, or leave ray_address out to use this machine",
        ) from error


def _wait_for(group: Any) -> None:
    if not group.wait(timeout_seconds=PLACE_SECONDS):
        bundles = group.bundle_specs
        raise EngineError(
            f"Ray has no free slots for {len(bundles)} × {bundles[0]} (it has {ray.cluster_resources()})",
            key="cluster",
            remedy="stop other runs on this cluster, add machines, or lower cluster.processes or "
            "rollout.engines",
        )


def by_node(slots: Sequence[Slot]) -> list[Slot]:
    """The slots, those of one machine side by side: Ray promises no order of its bundles."""
    return sorted(slots, key=lambda slot: (slot.address, slot.node, slot.bundle))


def share(slots: Sequence[Slot], others: Sequence[Slot], threads: int | None) -> list[int]:
    """Threads of each actor, when all of a machine compute at the same time.

    Args:
        slots: of the actors.
        others: of those that compute at the same time.
        threads: of a machine; default: its cores.
    """
    crowd = Counter(slot.node for slot in (*slots, *others))
    return [max(1, (threads or slot.cores) // crowd[slot.node]) for slot in slots]


def _seats(
    slots: Sequence[Slot], others: Sequence[Slot], threads: int | None, device: str, group: Any
) -> tuple[Seat, ...]:
    shares = share(slots, others, threads)
    return tuple(Seat(device, slot, own, group) for slot, own in zip(slots, shares, strict=True))


def _bundle(device: str, devices: int) -> dict[str, float]:
    return {"CPU": 1.0, "GPU": float(devices)} if device == "cuda" else {"CPU": 1.0}


def _slots(group: Any, count: int) -> list[Slot]:
    """Where each bundle is, asked of the bundles themselves."""
    found = ray.get([_ask(group, bundle) for bundle in range(count)], timeout=PLACE_SECONDS)
    return [Slot(bundle, *each) for bundle, each in enumerate(found)]


def _ask(group: Any, bundle: int) -> Any:
    """Ask a bundle for (node, address, cores); the answer comes when it has a place."""
    where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    return ray.remote(num_cpus=0, scheduling_strategy=where)(_here).remote()


def _here() -> tuple[str, str, int]:
    node = ray.get_runtime_context().get_node_id()
    return node, ray.util.get_node_ip_address(), len(os.sched_getaffinity(0))


def _check_tensor_parallel(devices: int, device: str, *, apart: bool) -> None:
    if devices > 1 and device == "cuda" and not apart:
        raise EngineError(
            f"an engine on {devices} GPUs cannot share the GPU of one rank",
            key="rollout.tensor_parallel",
            remedy="set cluster.placement=disaggregated, or rollout.tensor_parallel=1",
        )


def _device(config: ClusterConfig) -> str:
    if config.device != "auto":
        return config.device
    return "cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu"
