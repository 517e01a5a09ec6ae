"""The check for GPUs, as far as a machine without one can show it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "gpu"


def check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=550,
        cwd="/",
        env={**os.environ, "PYTHONPATH": "", **environment},
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_runs_and_the_status_says_so(tmp_path: Path) -> None:
    done = check(OUT=str(tmp_path))
    assert done.returncode == 3, done.stderr
    assert "nothing ran: PyTorch sees no GPU here" in done.stdout
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert (found["status"], found["parts"]) == ("nothing ran", {})
    assert found["machine"]["torch"] == torch.__version__


@pytest.mark.slow
def test_parts_run_with_torch_and_transformers_alone(tmp_path: Path) -> None:
    for name in ("pydantic", "pydantic_core", "xxhash", "ray", "trl", "vllm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ModuleNotFoundError({name!r}, name={name!r})")
    out = tmp_path / "found.json"
    parts = ("moves", "sharing", "folding", "engine")
    done = check(str(out), "--device", "cpu", "--only", *parts, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["machine"]["stood in"] == "pydantic, xxhash"
    assert {name: part["status"] for name, part in found["parts"].items()} == {
        "moves": "passed",
        "sharing": "passed",
        "folding": "passed",
        "engine": "skipped",
    }
    assert found["parts"]["engine"]["reason"] == "vllm is not installed"
    assert found["parts"]["moves"]["figures"]["gradient norm after"] > 0


@pytest.mark.slow
def test_every_part_without_an_engine_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = check(str(out), "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert {part["status"] for part in found["parts"].values()} == {"passed"}
    assert list(found["parts"]) == ["agreement", "mfu", "moves", "sharing", "folding", "sharded"]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module_of):
    """``run.py``, with parts from a folder of the test's own."""
    module = module_of(FOLDER / "run.py")
    monkeypatch.setattr(module, "HERE", tmp_path)
    return module


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("def main(device, report): report.figures['a'] = 1", "passed", ""),
        (
            "def main(device, report): report.check(False, 'one'); report.check(False, 'two')",
            "failed",
            "one; two",
        ),
        ("def main(device, report): raise ValueError('bad\\nmore')", "failed", "ValueError: bad"),
        ("def main(device, report): raise part.Skipped('too small')", "skipped", "too small"),
        (
            "def main(device, report): raise ModuleNotFoundError(name='vllm')",
            "skipped",
            "vllm is not installed",
        ),
        ("def main(device, report): import json.lost", "failed", "json.lost is not installed"),
        ("def main(device, report): import nothing_there", "failed", "nothing_there is not installed"),
        ("def main(device, report): __import__('os')._exit(9)", "failed", "its process ended with status 9"),
    ],
)
def test_how_a_part_ends(runner, tmp_path: Path, text: str, status: str, reason: str) -> None:
    lines = ["import sys", f"sys.path.insert(0, {str(FOLDER)!r})", "import part", text, "part.run(main)"]
    (tmp_path / "trial.py").write_text("\n".join(lines))
    found = runner.run_part("trial", "cpu", 60, tmp_path / "log")
    assert (found["status"], found["reason"]) == (status, reason)
    assert found["figures"] == ({"a": 1} if status == "passed" else {})


def test_a_part_that_hangs_ends_with_all_that_it_started(runner, tmp_path: Path) -> None:
    (tmp_path / "trial.py").write_text(
        textwrap.dedent(
            f"""
            import subprocess, sys, time
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
            open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
            time.sleep(100)
            """
        )
    )
    found = runner.run_part("trial", "cpu", 3, tmp_path / "log")
    assert (found["status"], found["reason"]) == ("failed", "not done after 3 s")
    child = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    for _ in range(50):
        try:
            state = child.read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the child goes on")


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    agreement, part = importlib.import_module("agreement"), importlib.import_module("part")
    wanted = {"a": torch.tensor([1.0, -2.0]), "b": torch.zeros(2)}
    for change, failures in ((1e-4, 0), (1e-3, 1)):
        report = part.Report()
        found = wanted | {"a": wanted["a"] + torch.tensor([change, 0.0])}
        agreement.compare(report, "trial", (0.5, found), (0.5, wanted), 1e-4)
        assert len(report.failures) == failures
        assert report.figures["trial: worst gradient element"] == pytest.approx(change / 2, rel=1e-2)
    report = part.Report()
    agreement.compare(report, "trial", (0.6, wanted), (0.5, wanted), 1e-4)
    assert report.failures == ["trial: the loss differs by 0.2, allowed 0.0001"]
