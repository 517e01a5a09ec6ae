"""``ray job submit``: recipe, data and reward file travel in the working directory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REWARD = """
from align.reward import Sample, reward
from .spelling import vowels


@reward(name="vowels")
def share(sample: Sample) -> float:
    return vowels(sample.completion)
"""
BESIDE = """
def vowels(text):
    return sum(letter in "aeiou" for letter in text) / (len(text) or 1)
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def dashboard_packages(repo_root: Path, tmp_path: Path) -> Path:
    """What Ray's dashboard needs beside align's environment: it takes the jobs."""
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path / "jobs"),
    ]
    subprocess.run([*install, "-r", str(repo_root / ".ci/lock/jobs.txt")], check=True, timeout=300)
    return tmp_path / "jobs"


@pytest.fixture
def head(dashboard_packages: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a cluster's dashboard, and the environment of who may speak to it."""
    environment = os.environ | {
        "PYTHONPATH": str(dashboard_packages),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    folder, dashboard = tempfile.mkdtemp(prefix="al"), free_port()
    ray = str(Path(sys.executable).with_name("ray"))
    begin = [ray, "start", "--head", f"--port={free_port()}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    begin += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={folder}/ray"]
    with Path(folder, "log").open("w") as log:
        process = subprocess.Popen(
            [*begin, "--block"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        listing = [ray, "job", "list", "--address", f"http://127.0.0.1:{dashboard}"]
        end = time.monotonic() + 120
        while subprocess.run(listing, env=environment, capture_output=True, timeout=60).returncode:
            assert process.poll() is None, Path(folder, "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.5)
        yield f"http://127.0.0.1:{dashboard}", environment
        os.killpg(process.pid, 15)
        process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_job_runs_from_its_working_directory(
    repo_root: Path, tmp_path: Path, head: tuple[str, dict[str, str]]
) -> None:
    address, environment = head
    work, run = tmp_path / "work", tmp_path / "run"
    shutil.copytree(repo_root / "recipes/quickstart/policy", work / "policy")
    rows = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(8)]
    (work / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (work / "rewards").mkdir()
    (work / "rewards/vowels.py").write_text(REWARD)
    (work / "rewards/spelling.py").write_text(BESIDE)
    recipe = {
        "kind": "grpo",
        "name": "submitted",
        "policy": {"path": "policy", "init": "random", "dtype": "float32"},
        "data": {"path": "prompts.jsonl"},
        "rewards": {"terms": {"vowels": {"function": "rewards/vowels.py"}}},
        "grpo": {"steps": 2, "prompts_per_step": 4, "group_size": 2},
        "optim": {"lr": 1e-4},
        "rollout": {"max_new_tokens": 8, "kv_cache_gib": 1},
        "run_dir": str(run),
    }
    (work / "recipe.yaml").write_text(json.dumps(recipe))
    executables = Path(sys.executable).parent
    asked = [
        str(executables / "ray"),
        "job",
        "submit",
        "--address",
        address,
        "--working-dir",
        str(work),
        "--",
    ]
    asked += [str(executables / "align"), "grpo", "recipe.yaml", "--ray-address", "auto"]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [each["sync/version"] for each in records if "train/loss" in each] == [1, 2]
    assert (run / "final/model.safetensors").is_file()
