"""GRPO over several Ray nodes with addresses of their own: the recipe changes by its ``cluster`` alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def ray_nodes(module_of: Callable[[Path], Any]) -> Any:
    """``ray_nodes([1, 1], folder)``: nodes in network namespaces."""
    module = module_of(Path(__file__).with_name("nodes.py"))
    if not module.can_make_namespaces():
        pytest.skip("this user may not make network namespaces")
    return module.Nodes


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: a socket's path has 107 characters at most."""
    made = Path(tempfile.mkdtemp(prefix="al"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def command(repo_root: Path, run: Path, nodes: Any, *overrides: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("align")),
        "grpo",
        str(repo_root / "recipes/quickstart/grpo.yaml"),
        "--ray-address",
        nodes.address,
        f"policy.path={repo_root / 'recipes/quickstart/policy'}",
        "policy.init=random",
        "policy.dtype=float32",
        "grpo.steps=2",
        "grpo.prompts_per_step=8",
        "grpo.group_size=4",
        "rollout.max_new_tokens=16",
        "report.console=false",
        "cluster.threads=1",
        f"run_dir={run}",
        *overrides,
    ]


def steps(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if "train/loss" in record]


def finished(done: subprocess.CompletedProcess[str], run: Path) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each["sync/version"] for each in steps(run)] == [1, 2]
    assert (run / "final" / "model.safetensors").is_file()


def test_two_ranks_on_two_nodes(repo_root: Path, folder: Path, ray_nodes: Any) -> None:
    run = folder / "run"
    with ray_nodes([1, 1], folder) as nodes:
        asked = command(repo_root, run, nodes, "cluster.processes=2", "cluster.expert_parallel=2")
        done = subprocess.run(asked, env=nodes.environment, capture_output=True, text=True, timeout=500)
    finished(done, run)


APART = (
    "cluster.placement=disaggregated",
    "rollout.engines=2",
    "rollout.max_num_seqs=4",
    "rollout.max_new_tokens=64",
)


def test_a_trainer_and_two_engines_on_three_nodes_one_of_which_is_lost(
    repo_root: Path, folder: Path, ray_nodes: Any
) -> None:
    run = folder / "run"
    with ray_nodes([1, 1, 1], folder) as nodes:
        asked = command(repo_root, run, nodes, *APART, "grpo.prompts_per_step=24")
        process = begun(asked, nodes, run)
        lost = next(number for number in (1, 2) if nodes.runs(number, "RolloutActor"))
        nodes.kill(lost)  # within the second step, whose rollout takes seconds
        told, _ = process.communicate(timeout=400)
    finished(subprocess.CompletedProcess(asked, process.returncode, told, ""), run)
    assert [each["rollout/engines"] for each in steps(run)] == [2, 1]


def test_a_node_that_is_added_gets_an_engine(repo_root: Path, folder: Path, ray_nodes: Any) -> None:
    run = folder / "run"
    with ray_nodes([1, 1, 1], folder, later=1) as nodes:
        asked = command(repo_root, run, nodes, *APART, "grpo.steps=60", "checkpoint.every=60")
        process = begun(asked, nodes, run)
        nodes.add()
        end = time.monotonic() + 300
        while steps(run)[-1]["rollout/engines"] < 2:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=200)
    assert process.returncode == 130, told
    assert steps(run)[0]["rollout/engines"] == 1


def begun(asked: list[str], nodes: Any, run: Path) -> subprocess.Popen[str]:
    """A run that has finished a step."""
    process = subprocess.Popen(
        asked, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 400
    while not (run / "metrics.jsonl").is_file() or not steps(run):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.2)
    return process


def test_fine_tuning_on_two_nodes_stops_and_goes_on(repo_root: Path, folder: Path, ray_nodes: Any) -> None:
    run = folder / "run"

    def asked(*overrides: str) -> list[str]:
        return [
            str(Path(sys.executable).with_name("align")),
            "sft",
            str(repo_root / "recipes/quickstart/sft.yaml"),
            "--ray-address",
            nodes.address,
            f"policy.path={repo_root / 'recipes/quickstart/policy'}",
            "policy.dtype=float32",
            "cluster.processes=2",
            "cluster.threads=1",
            f"run_dir={run}",
            *overrides,
        ]

    with ray_nodes([1, 1], folder) as nodes:
        process = begun(asked("sft.max_steps=2000"), nodes, run)
        assert nodes.runs(0, "TrainingRank")
        assert nodes.runs(1, "TrainingRank")
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=200)
        assert process.returncode == 130, told
        assert "continue with --resume" in told  # what rank 0 prints is seen here
        reached = steps(run)[-1]["step"]
        again = asked(f"sft.max_steps={reached + 2}", "--resume")
        done = subprocess.run(again, env=nodes.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each["step"] for each in steps(run)] == list(range(1, reached + 3))
    assert (run / "final" / "model.safetensors").is_file()
