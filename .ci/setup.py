"""Make .venv a working environment for this checkout, check it, and say what was done.

    python3 .ci/setup.py [--accelerator auto|cpu|cuda] [--python python3.12]

Needs Python 3.11 or newer and its standard library, nothing else. Installs exactly what the
lock file names, without resolving dependencies: docs/decisions/0001-set-up-and-locks.md says
why. A second run compares a stamp and the installed versions, and is done in a second.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, TOO_NEW = (3, 11), (3, 14)
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
INDEX_TIMEOUT = 15
"""Seconds without an answer after which the index of CPU builds counts as out of reach."""
WRONG_BUILDS = ("torchvision", "torchaudio", "torchcodec")
"""Packages whose PyPI builds break a CPU environment; absent unless the lock names them."""


class SetupError(Exception):
    """Set-up cannot go on; the text says why and what to do."""


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def python_version(python: str) -> tuple[int, ...] | None:
    """(major, minor, micro) of an interpreter; None where it does not run."""
    code = "import sys; print(*sys.version_info[:3])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def suitable(version: tuple[int, ...] | None) -> bool:
    return version is not None and OLDEST <= version[:2] < TOO_NEW


def find_python(given: str | None) -> str:
    """The interpreter for the environment: the given one, else this one, else one on PATH."""
    here = getattr(sys, "_base_executable", None) or sys.executable
    names = [given] if given else [here, "python3.11", "python3.12", "python3.13", "python3"]
    for name in names:
        if suitable(python_version(name)):
            return name
    raise SetupError(
        f"no Python from 3.11 to 3.13 found (tried {', '.join(names)})\n"
        "  remedy: install one and name it, for example: make setup PYTHON=python3.11"
    )


def find_accelerator(given: str) -> str:
    """``cuda`` where an NVIDIA GPU answers, else ``cpu``."""
    if given != "auto":
        return given
    if glob.glob("/dev/nvidia[0-9]*"):
        return "cuda"
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if listed.returncode == 0 and "GPU" in listed.stdout else "cpu"


def lock_file(accelerator: str) -> Path:
    return ROOT / ".ci" / "lock" / f"{accelerator}.txt"


def digest(accelerator: str, version: tuple[int, ...]) -> str:
    """Changes with everything that the environment depends on, the checkout's place included."""
    found = hashlib.sha256(repr((str(ROOT), accelerator, version)).encode())
    for file in (lock_file(accelerator), ROOT / "pyproject.toml", ROOT / ".ci" / "check_env.py"):
        found.update(file.read_bytes())
    return found.hexdigest()


def make_venv(venv: Path, python: str) -> None:
    """Create the environment, with pip inside.

    Raises:
        SetupError: the interpreter cannot make one, as on a Debian without its venv package.
    """
    done = subprocess.run([python, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        major, minor = (python_version(python) or OLDEST)[:2]
        said = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[:4])
        raise SetupError(
            f"{python} cannot create a virtual environment:\n  {said}\n"
            f"  remedy: apt-get install python{major}.{minor}-venv (Debian, Ubuntu), or name a complete "
            "Python: make setup PYTHON=/path/to/python3.11"
        )


def pip(venv: Path, *arguments: str, log: Path) -> bool:
    """Run pip, showing one line a package; its whole output is appended to ``log``."""
    command = [str(venv / "bin" / "python"), "-m", "pip", *arguments]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
    environment.pop("PYTHONPATH", None)  # what lies there would count as installed
    with log.open("a", encoding="utf-8") as record:
        record.write(f"$ {' '.join(command)}\n")
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                record.write(line)
                if line.startswith("Collecting "):
                    print(f"    {line.split()[1]}", flush=True)
                elif line.startswith("Installing collected packages"):
                    print("    writing the packages to disk", flush=True)
    return process.returncode == 0


def complaint(log: Path) -> str:
    """pip's own words for its latest failure."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    latest = lines[max(i for i, line in enumerate(lines) if line.startswith("$ ")) + 1 :]
    errors = [line for line in latest if line.startswith("ERROR")]
    return "\n".join(f"  | {line}" for line in (errors or latest)[-6:])


def install_cpu_torch(
    venv: Path, pin: str, *, log: Path, index: str = CPU_TORCH_INDEX, timeout: int = INDEX_TIMEOUT
) -> None:
    """Install the CPU build of torch: from where pip is configured to look, else from its own index.

    Raises:
        SetupError: neither has it, or the index gives no answer within ``timeout`` seconds, twice.
    """
    say(f"{pin}: looking where pip is configured to look")
    if pip(venv, "install", "--no-deps", pin, log=log):
        return
    say(f"{pin}: not there; trying the index of CPU builds (at most {2 * timeout} s for an answer)")
    limits = ("--timeout", str(timeout), "--retries", "1")
    if pip(venv, "install", "--no-deps", *limits, "--index-url", index, pin, log=log):
        return
    raise SetupError(
        f"{pin} could not be installed:\n{complaint(log)}\n"
        f"  remedy: make {index} reachable, or put the wheel into a folder and name that: "
        f"PIP_FIND_LINKS=/path/to/folder make setup (pip's whole output: {log})"
    )


def install(venv: Path, accelerator: str, log: Path) -> None:
    """Bring ``venv`` to what the lock says, and this checkout into it."""
    lock = lock_file(accelerator)
    text = lock.read_text(encoding="utf-8")
    pins = re.findall(r"^[A-Za-z0-9]\S*==\S+", text, flags=re.MULTILINE)
    if accelerator == "cpu":
        install_cpu_torch(venv, next(pin for pin in pins if pin.startswith("torch==")), log=log)
    say(f"{len(pins)} packages from {lock.relative_to(ROOT)} (the first time, some minutes)")
    if not pip(venv, "install", "--no-deps", "-r", str(lock), log=log):
        raise SetupError(
            f"pip failed:\n{complaint(log)}\n  remedy: check network and disk; pip's whole output is in {log}"
        )
    wrong = [name for name in WRONG_BUILDS if not re.search(rf"^{name}==", text, flags=re.MULTILINE)]
    if wrong and not pip(venv, "uninstall", "--yes", *wrong, log=log):
        raise SetupError(f"pip could not remove {', '.join(wrong)}:\n{complaint(log)}")
    say("align itself, editable")
    here = ("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    if not pip(venv, "install", *here, log=log):
        raise SetupError(f"pip could not install this checkout:\n{complaint(log)}")


def check(venv: Path, accelerator: str, *, imports: bool) -> tuple[bool, str]:
    """Compare ``venv`` with the lock and, if asked, import what align stands on."""
    command = [str(venv / "bin" / "python"), str(ROOT / ".ci" / "check_env.py")]
    command += [str(lock_file(accelerator)), accelerator, *(["--imports"] if imports else [])]
    environment = {**os.environ, "PYTHONNOUSERSITE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=venv)
    said = done.stdout.strip() or "\n".join(done.stderr.strip().splitlines()[-12:])
    return done.returncode == 0, said


def read_stamp(venv: Path) -> dict[str, str]:
    try:
        return dict(json.loads((venv / "align-setup.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def set_up(venv: Path, python: str | None, accelerator: str) -> str:
    """Do what is missing; returns one line that says what was done."""
    began = time.monotonic()
    own = str(venv / "bin" / "python")
    version, stamp = python_version(own), read_stamp(venv)
    moved = stamp.get("root", str(ROOT)) != str(ROOT)
    other = python is not None and python_version(python) != version
    usable = suitable(version) and not moved and not other
    if usable and version and stamp.get("digest") == digest(accelerator, version):
        current, said = check(venv, accelerator, imports=False)
        if current:
            return f"set-up is current ({said})"
        say(f"{venv.name} has drifted from the lock: {said}")
    stamp_file = venv / "align-setup.json"
    stamp_file.unlink(missing_ok=True)
    if not usable or subprocess.run([own, "-m", "pip", "--version"], capture_output=True).returncode:
        chosen = find_python(python)
        say(f"{venv.name}: a new environment from {chosen}")
        make_venv(venv, chosen)
        version = python_version(own)
    assert version is not None
    say(f"Python {'.'.join(map(str, version))}, {accelerator} builds; pip's output goes to {venv}/setup.log")
    log = venv / "setup.log"
    log.write_text("", encoding="utf-8")
    install(venv, accelerator, log)
    say("checking: versions, then imports (half a minute)")
    good, said = check(venv, accelerator, imports=True)
    if not good:
        raise SetupError(f"the environment does not work:\n{said}\n  remedy: make clean setup")
    stamp_file.write_text(json.dumps({"root": str(ROOT), "digest": digest(accelerator, version)}))
    return f"set-up done in {time.monotonic() - began:.0f} s ({said})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make .venv a working environment and check it.")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--python", help="interpreter to build .venv from (3.11 to 3.13)")
    options = parser.parse_args(arguments)
    try:
        if not sys.platform.startswith("linux"):
            raise SetupError("vLLM runs on Linux only\n  remedy: use a Linux machine or container")
        accelerator = find_accelerator(options.accelerator)
        say(set_up(ROOT / ".venv", options.python or None, accelerator))
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
