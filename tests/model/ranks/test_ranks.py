"""A policy on two and four ranks against one process: the same numbers, in fp32.

Each number of ranks is one set of processes that plays all its cases one after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from align.cluster.meeting import open_meeting
from align.errors import CheckpointError
from align.model.ranks.layout import Ranks

HERE = Path(__file__).parent
SAME = 1e-5
"""Of gradients and logarithms, relative to the largest value of each tensor."""
AFTER_THREE = 2e-5
"""Of weights after three updates: mostly below 6e-6, but Adam makes full steps of what rounding leaves."""

CASES: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "full": {},
        "experts over both": {"expert_parallel": 2},
        "fewer groups than ranks": {"groups": 1, "grpo": {"micro_batch_tokens": 8192}},
        "experts, recomputed": {"expert_parallel": 2, "policy": {"gradient_checkpointing": True}},
        "no reference, eager experts": {
            "expert_parallel": 2,
            "grpo": {"beta": 0},
            "policy": {"experts": "eager"},
        },
        "replayed": {"expert_parallel": 2, "grpo": {"replay": "rollout"}},
        "own routing again": {"grpo": {"replay": "trainer"}},
        "adapters": {"policy": {"lora": {"rank": 4}}},
        "uneven": {"model": "uneven"},
        "stopped": {"breaks": True},
        "half": {"policy": {"dtype": "bfloat16"}, "expert_parallel": 2, "tolerance": 0.02},
        "from files": {"model": "stored", "policy": {"init": "pretrained"}, "expert_parallel": 2},
        "from files, uneven": {"model": "stored, uneven", "policy": {"init": "pretrained"}},
        "adapters on files": {
            "model": "stored, uneven",
            "policy": {"init": "pretrained", "lora": {"rank": 3}},
        },
    },
    4: {
        "full on four": {},
        "experts over two pairs": {"expert_parallel": 2},
        "experts over four": {"expert_parallel": 4},
        "uneven on four": {"model": "uneven", "expert_parallel": 2},
        "from files on four": {
            "model": "stored, uneven",
            "policy": {"init": "pretrained"},
            "expert_parallel": 2,
        },
        "adapters on four": {"policy": {"lora": {"rank": 4}}, "expert_parallel": 2},
    },
}


@pytest.fixture(scope="session")
def play(module_of) -> Callable[..., dict[str, Any]]:
    """What each rank does, here on one."""
    return module_of(HERE / "ranked.py").play


@pytest.fixture(scope="session")
def models(tmp_path_factory, deepseek_v2, repo_root) -> dict[str, str]:
    """Directories of configurations, and of whole models: of even numbers, and such that no rank's share is
    another's."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from align.config.policy import PolicyConfig
    from align.model.files.load import load_tokenizer
    from align.model.files.save import save_model

    tokenizer = load_tokenizer(PolicyConfig(path=str(repo_root / "recipes/quickstart/policy")))
    words = len(tokenizer)
    shapes = {
        "even": deepseek_v2(vocab_size=words + words % 2, moe_router_dtype="float32"),
        "uneven": deepseek_v2(
            vocab_size=words + 1 - words % 2, n_routed_experts=6, q_lora_rank=11, moe_router_dtype="float32"
        ),
    }
    made = {}
    for name, settings in shapes.items():
        folder = tmp_path_factory.mktemp("model") / name
        tokenizer.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(settings))
        made[name] = str(folder)
        stored = folder.with_name(f"{name}-stored")
        config = AutoConfig.from_pretrained(folder)
        config.tie_word_embeddings = name == "even"
        torch.manual_seed(0)
        save_model(AutoModelForCausalLM.from_config(config, dtype=torch.float32), tokenizer, stored)
        made["stored" if name == "even" else f"stored, {name}"] = str(stored)
    return made


def run(world: int, cases: dict[str, dict[str, Any]], folder: Path) -> None:
    """Start the ranks and wait for them."""
    (folder / f"cases-{world}.json").write_text(json.dumps(cases))
    meeting = open_meeting("127.0.0.1")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, HERE / "ranked.py", str(rank), str(world), str(meeting.port), folder],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    told = [process.communicate(timeout=400)[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(told)


@pytest.fixture(scope="session")
def played(tmp_path_factory, models) -> Callable[[str], dict[str, Any]]:
    """What rank 0 saw of a case. All cases of as many ranks are played when the first is asked for."""

    @cache
    def of(world: int) -> dict[str, dict[str, Any]]:
        folder, found = tmp_path_factory.mktemp("ranks"), {}
        cases = CASES[world]
        run(
            world,
            {name: case | {"model": models[case.get("model", "even")]} for name, case in cases.items()},
            folder,
        )
        for name in cases:
            others = sorted(folder.glob(f"{name}-*.json"))
            found[name] = torch.load(folder / f"{name}.pt", weights_only=True)
            found[name]["others"] = [json.loads(each.read_text()) for each in others]
        return found

    return lambda name: of(next(world for world, cases in CASES.items() if name in cases))[name]


def close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    gap = float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max().clamp_min(1e-12))
    assert gap <= tolerance, gap


def compared(metrics: dict[str, float]) -> dict[str, float]:
    """Without what says how groups were cut into passes."""
    cut = ("train/fed_tokens", "train/padding_share", "train/prompt_passes", "router/prompt_disagreement")
    return {name: value for name, value in metrics.items() if name not in cut}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if world > 2 else [])
        for world, cases in CASES.items()
        for name in cases
    ],
)
def test_ranks_compute_what_one_process_does(name: str, played, models, play) -> None:
    case = next(cases[name] for cases in CASES.values() if name in cases)
    alone = play(case, models[case.get("model", "even")], Ranks())
    found, same = played(name), case.get("tolerance", SAME)
    for ours, theirs in zip(found["logprobs"], alone["logprobs"], strict=True):
        assert ours == pytest.approx(theirs, abs=same)
    assert found["gradients"].keys() == alone["gradients"].keys()
    for key, wanted in alone["gradients"].items():
        close(found["gradients"][key], wanted, same)
    assert compared(found["metrics"][0]) == pytest.approx(compared(alone["metrics"][0]), abs=same, rel=same)
    assert found["metrics"][0]["train/grad_norm"] > 0.05  # it is that before clipping
    for kind in ("weights", "changed"):
        assert list(found[kind]) == list(alone[kind])
    if same > SAME:  # rounding turns the sign of small gradients, which Adam makes steps of full size
        return
    later = pytest.approx(compared(alone["metrics"][2]), abs=1e-3, rel=1e-3)
    assert compared(found["metrics"][2]) == later
    for kind in ("weights", "changed"):
        for key, wanted in alone[kind].items():
            close(found[kind][key], wanted, AFTER_THREE)
    assert found["probe"] == pytest.approx(alone["probe"], abs=1e-3)


def test_what_is_not_finite_on_one_rank_stops_all(played) -> None:
    found = played("stopped")
    every = [[found["fault"], found["kept"]], *found["others"]]
    assert len(every) == 2
    assert all(kept and "prompt p/0 is not finite" in fault for fault, kept in every)


def test_a_checkpoint_goes_on_with_another_number_of_ranks(tmp_path, models, play) -> None:
    model = {"model": models["uneven"]}
    of_two, of_one = str(tmp_path / "of two"), str(tmp_path / "of one")

    def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
        loaded, saved = compared(found["after loading"]), compared(wanted["after saving"])
        assert loaded == pytest.approx(saved, abs=1e-3, rel=1e-3)

    run(2, {"two": {**model, "expert_parallel": 2, "saves": of_two}}, tmp_path)
    one = play({"loads": of_two, "saves": of_one}, models["uneven"], Ranks())
    same(one, torch.load(tmp_path / "two.pt", weights_only=True))
    run(2, {"again": {**model, "loads": of_one}}, tmp_path)
    same(torch.load(tmp_path / "again.pt", weights_only=True), one)
    (tmp_path / "of two" / "optimizer-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="optimizer-00001-of-00002"):
        play({"loads": of_two}, models["uneven"], Ranks())
