"""Real Ray nodes on this machine, each in a network namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import TracebackType

import psutil

BRIDGE, NETWORK = "alignbr", "10.77.0"
START_SECONDS, ATTEMPTS = 150, 3
"""Ray gives a raylet 30 s of its own, too little on a busy machine."""


def can_make_namespaces() -> bool:
    """Whether this user may make network namespaces."""
    try:
        subprocess.run(["ip", "netns", "add", "aligntry"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    subprocess.run(["ip", "netns", "del", "aligntry"], check=True)
    return True


class Nodes:
    """A head beside the bridge and further nodes behind it.

    Usage: ``with Nodes([1, 1], folder) as nodes: … nodes.address``. ``nodes.environment`` is that of whoever
    joins.
    """

    def __init__(self, cpus: list[int], folder: Path, later: int = 0) -> None:
        """
        Args:
            cpus: of each node; the first is the head.
            folder: for logs. Ray wants short paths.
            later: so many of the last ones wait for :meth:`add`.
        """
        self.cpus, self.folder, self.later = cpus, folder, later
        self.processes: list[subprocess.Popen[str]] = []
        self.address = f"{NETWORK}.254:6399"
        # A head turns token authentication on by itself, a joining node does not.
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
        }

    def __enter__(self) -> Nodes:
        try:
            self._network()
            for number in range(len(self.cpus) - self.later):
                self._start(number)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in reversed(range(len(self.processes))):
            self.kill(number)
        for number in range(1, len(self.cpus)):
            subprocess.run(["ip", "netns", "del", f"align{number}"], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)

    def kill(self, number: int) -> None:
        """End a node at once with everything on it; the raylet first, so that nothing is restarted."""
        process = self.processes[number]
        try:
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for each in sorted(tree, key=lambda each: each.name() != "raylet"):
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(tree, 5)

    def runs(self, number: int, actor: str) -> bool:
        """Whether an actor of this class is on a node."""
        tree = psutil.Process(self.processes[number].pid).children(recursive=True)
        return any(f"ray::{actor}" in " ".join(each.cmdline()) for each in tree)

    def add(self) -> None:
        """Start the next node."""
        self._start(len(self.processes))

    def _network(self) -> None:
        commands = [
            f"ip link add {BRIDGE} type bridge",
            f"ip addr add {NETWORK}.254/24 dev {BRIDGE}",
            f"ip link set {BRIDGE} up",
        ]
        for i in range(1, len(self.cpus)):
            commands += [
                f"ip netns add align{i}",
                f"ip link add alignv{i} type veth peer name eth0 netns align{i}",
                f"ip link set alignv{i} master {BRIDGE} up",
                f"ip netns exec align{i} ip addr add {NETWORK}.{i}/24 dev eth0",
                f"ip netns exec align{i} ip link set eth0 up",
                f"ip netns exec align{i} ip link set lo up",
            ]
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)

    def _start(self, number: int) -> None:
        for attempt in range(ATTEMPTS):
            told = self._try(number)
            if not told:
                return
            if "timed out during startup" not in told or attempt == ATTEMPTS - 1:
                raise RuntimeError(told)
            self.kill(number)
            self.processes.pop()

    def _try(self, number: int) -> str:
        """Start a node; what it said when it did not come up."""
        ray = str(Path(sys.executable).with_name("ray"))
        common = [
            "--block",
            f"--num-cpus={self.cpus[number]}",
            "--object-store-memory=100000000",
            "--disable-usage-stats",
        ]
        if number == 0:
            own = ["--head", "--port=6399", f"--node-ip-address={NETWORK}.254", "--include-dashboard=false"]
            command = [ray, "start", *own, f"--temp-dir={self.folder / 'ray'}", *common]
        else:
            own = [f"--address={self.address}", f"--node-ip-address={NETWORK}.{number}"]
            command = ["ip", "netns", "exec", f"align{number}", ray, "start", *own, *common]
        log = self.folder / f"node{number}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                text=True,
            )
        self.processes.append(process)
        end = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in log.read_text() and "--block" not in log.read_text():
            if process.poll() is not None or time.monotonic() > end:
                return log.read_text()[-1500:] or "it said nothing"
            time.sleep(0.1)
        return ""
