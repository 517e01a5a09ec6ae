"""SFT and reward models sharded by FSDP2 over two gloo processes, beside one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("sharded_worker.py")
ROOT = Path(__file__).resolve().parents[3]
SHARED: dict[str, Any] = {
    "policy": {"path": str(ROOT / "recipes/quickstart/policy"), "init": "random", "dtype": "float32"},
    "optim": {"lr": 1e-3, "warmup_steps": 0, "grad_clip": 0.05},
    "report": {"console": False, "tensorboard": False},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``sft-1``, ``sft-2``, ``rm-1``, ``rm-2`` and what was held."""
    folder = tmp_path_factory.mktemp("sharded")
    rows = [{"prompt": f"{a} + {b} = ?", "completion": str(a + b)} for a in range(6) for b in range(6)]
    pairs = [{"prompt": f"{n} + 1 = ?", "chosen": f"It is {n + 1}.", "rejected": "no"} for n in range(32)]
    for name, content in (("rows", rows), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in content))
    sft = {"epochs": 1, "batch_size": 6, "gradient_accumulation": 2, "max_length": 64, "balance_alpha": 0.01}
    # No balance loss: for it a pair is one sequence in one process, and two in several.
    rm = {"batch_size": 8, "max_steps": 3, "max_length": 64, "micro_batch_tokens": 256, "balance_alpha": 0}
    for kind, section, data in (("sft", sft, "rows"), ("rm", rm, "pairs")):
        recipe = SHARED | {
            "kind": kind,
            "name": kind,
            kind: section,
            "data": {"path": f"{folder}/{data}.jsonl"},
        }
        (folder / f"{kind}.json").write_text(json.dumps(recipe))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for start in ([sys.executable], launcher):
        done = subprocess.run(
            [*start, str(WORKER), str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


def steps(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "train/loss" in line]


@pytest.mark.parametrize("kind", ["sft", "rm"])
def test_losses_norms_and_weights_are_those_of_one_process(runs: Path, kind: str) -> None:
    one, two = (steps(runs / f"{kind}-{world}") for world in (1, 2))
    assert len(one) == 3
    for name in ("train/loss", "train/grad_norm"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], rel=1e-4)
    assert min(line["train/grad_norm"] for line in two) > 0.05  # it is that before clipping
    whole, gathered = (load_file(runs / f"{kind}-{world}/final/model.safetensors") for world in (1, 2))
    assert whole.keys() == gathered.keys()
    assert max((whole[name] - gathered[name]).abs().max().item() for name in whole) < 1e-4


@pytest.mark.parametrize("kind", ["sft", "rm"])
def test_between_passes_a_process_holds_the_gradients_of_its_share(runs: Path, kind: str) -> None:
    weights = load_file(runs / f"{kind}-1/final/model.safetensors")
    whole = 4 * sum(each.numel() for each in weights.values())
    notes = [json.loads((runs / f"held-2-{rank}.json").read_text())[kind] for rank in (0, 1)]
    assert len(notes[0]) > 3  # passes: more than steps
    assert max(map(max, notes)) < 0.6 * whole
    assert sum(map(max, notes)) > 0.9 * whole
