from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from align.reward.sandbox import Limits, Sandbox, Verdict

# Under namespaces; and as on a machine without them, where Landlock and seccomp stand alone.
MODES = {"namespaces": (), "landlock": ("namespaces",)}
SECRET = "sesame-4711"
LIMITS = Limits(wall_seconds=20, cpu_seconds=10, memory_mb=256, output_kb=256)


@pytest.fixture(scope="session", params=MODES)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A warm sandbox in each way of isolating code that this machine has."""
    made = Sandbox(MODES[request.param])
    if made.protection().missing:
        made.close()
        pytest.skip(f"this machine lacks {', '.join(made.protection().missing)} under {request.param}")
    yield made
    made.close()


@pytest.fixture(scope="session")
def plain_sandbox() -> Iterator[Sandbox]:
    """A warm sandbox with whatever this machine has."""
    made = Sandbox()
    yield made
    made.close()


@pytest.fixture
def still_sound(sandbox: Sandbox) -> Iterator[None]:
    """After an attack the same processes stand, and honest code passes and finds nothing left of it."""
    process = sandbox._process
    yield
    assert sandbox._process is process
    honest = "import os\ndef f(x): return 2 * x\ndef left(): return os.listdir('.')"
    tests = ["assert f(3) == 6", "assert left() == []"]
    assert sandbox.run(honest, tests, limits=Limits(wall_seconds=60)).reason == "passed"
    inside = psutil.Process(process.pid)
    deadline = time.monotonic() + 30
    # Helper and first process of the namespaces, the judge, the next candidate.
    while len(inside.children(recursive=True)) > 4:
        assert time.monotonic() < deadline, inside.children(recursive=True)
        time.sleep(0.02)


@pytest.fixture
def attack(sandbox: Sandbox, still_sound: None) -> Callable[..., Verdict]:
    """Runs code that must not pass: ``attack(code)``, with ``test=`` and ``limits=``."""

    def attack(code: str, *, test: str = f"assert f(3) == {SECRET!r}", limits: Limits = LIMITS) -> Verdict:
        start = time.monotonic()
        verdict = sandbox.run(code, [test], limits=limits)
        assert time.monotonic() - start < limits.wall_seconds + 20
        assert verdict.reason != "passed", verdict
        return verdict

    return attack


@pytest.fixture
def seen(sandbox: Sandbox, still_sound: None) -> Callable[[str], list[object]]:
    """What ``f(3)`` of a code returns: attacks report which of their attempts succeeded."""

    def seen(code: str) -> list[object]:
        verdict = sandbox.run(code, ["import json", "assert False, json.dumps(f(3))"], limits=LIMITS)
        assert verdict.statuses == ("passed", "failed"), verdict
        return json.loads(verdict.detail)

    return seen
