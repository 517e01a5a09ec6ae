"""Set-up: which Python, which accelerator, which packages, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import socket
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

CI = Path(__file__).resolve().parents[2] / ".ci"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ci_{name}", CI / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup = load("setup")
find_gguf = load("find_gguf")


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("version", "fits"),
    [((3, 10, 13), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False), (None, False)],
)
def test_python_range(version: tuple[int, ...] | None, fits: bool) -> None:
    assert setup.suitable(version) is fits


def test_a_python_that_is_too_old_is_refused_with_a_remedy(tmp_path: Path) -> None:
    old = script(tmp_path / "python3.9", "echo 3 9 18")
    with pytest.raises(setup.SetupError, match="no Python from") as caught:
        setup.find_python(old)
    assert "make setup PYTHON=" in str(caught.value)
    with pytest.raises(setup.SetupError):
        setup.find_python(str(tmp_path / "absent"))


def test_this_python_is_taken_when_none_is_named() -> None:
    assert setup.python_version(setup.find_python(None)) == tuple(sys.version_info[:3])


def test_a_python_without_ensurepip_gives_one_remedy_and_leaves_nothing(tmp_path: Path) -> None:
    body = 'case "$1" in -c) echo 3 11 2;; *) mkdir -p "$4"; echo "ensurepip is not available"; exit 1;; esac'
    debian = script(tmp_path / "python3.11", body)
    venv = tmp_path / "venv"
    with pytest.raises(setup.SetupError) as caught:
        setup.make_venv(venv, debian)
    text = str(caught.value)
    assert "ensurepip is not available" in text
    assert "apt-get install python3.11-venv" in text
    assert text.count("remedy") == 1
    assert not venv.exists()


def test_accelerator_follows_what_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.glob, "glob", lambda pattern: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setup.find_accelerator("auto") == "cpu"
    script(tmp_path / "nvidia-smi", "echo 'GPU 0: NVIDIA H100'")
    assert setup.find_accelerator("auto") == "cuda"
    script(tmp_path / "nvidia-smi", "echo 'no devices were found'; exit 6")
    assert setup.find_accelerator("auto") == "cpu"
    assert setup.find_accelerator("cuda") == "cuda"


def test_a_device_file_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.glob, "glob", lambda pattern: ["/dev/nvidia0"])
    assert setup.find_accelerator("auto") == "cuda"


@pytest.mark.parametrize("name", [".ci/lock/cpu.txt", "pyproject.toml", ".ci/check_env.py"])
def test_the_stamp_changes_with_every_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (".ci/lock/cpu.txt", ".ci/lock/cuda.txt", "pyproject.toml", ".ci/check_env.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("a==1\n")
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    before = setup.digest("cpu", (3, 11, 7))
    assert setup.digest("cpu", (3, 11, 7)) == before
    assert setup.digest("cuda", (3, 11, 7)) != before
    assert setup.digest("cpu", (3, 12, 1)) != before
    (tmp_path / name).write_text("a==2\n")
    assert setup.digest("cpu", (3, 11, 7)) != before


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip and nothing else."""
    folder = tmp_path_factory.mktemp("setup") / "venv"
    setup.make_venv(folder, sys.executable)
    return folder


@pytest.fixture
def empty_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is configured to look into an index that has nothing."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "empty").as_uri())


def cpu_index(folder: Path) -> str:
    """A package index whose only wheel is an empty torch 0.0.1+cpu."""
    page = folder / "torch"
    page.mkdir(parents=True)
    wheel, info = "torch-0.0.1+cpu-py3-none-any.whl", "torch-0.0.1+cpu.dist-info"
    with zipfile.ZipFile(page / wheel, "w") as archive:
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1+cpu\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    (page / "index.html").write_text(f'<html><a href="{wheel.replace("+", "%2B")}">{wheel}</a></html>')
    return folder.as_uri()


@pytest.mark.usefixtures("empty_index")
def test_torch_comes_from_the_index_of_cpu_builds_when_pip_knows_no_other_place(
    venv: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    setup.install_cpu_torch(venv, "torch==0.0.1+cpu", log=log, index=cpu_index(tmp_path / "simple"))
    attempts = [line for line in log.read_text().splitlines() if line.startswith("$ ")]
    assert len(attempts) == 2
    assert "--index-url" in attempts[1]
    assert list(venv.glob("lib/python*/site-packages/torch-0.0.1+cpu.dist-info"))


@pytest.mark.usefixtures("empty_index")
def test_an_index_that_never_answers_ends_in_one_error_soon(venv: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and then says nothing
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        began = time.monotonic()
        with pytest.raises(setup.SetupError, match="could not be installed") as caught:
            setup.install_cpu_torch(venv, "torch==9.9.9+cpu", log=tmp_path / "log", index=index, timeout=1)
        assert time.monotonic() - began < 30
    assert "PIP_FIND_LINKS=" in str(caught.value)


def test_the_model_file_of_a_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "carrier"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('its dependencies are absent')\n")
    (package / "model.gguf").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_gguf.find_gguf("carrier") == package / "model.gguf"
    with pytest.raises(SystemExit, match="make smollm2"):
        find_gguf.find_gguf("carrier_that_is_absent")
