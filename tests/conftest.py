"""What all tests share: where things are, a small DeepSeek-V2, and `align` in this process."""

from __future__ import annotations

import importlib.util
import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def module_of() -> Callable[[Path], Any]:
    """``module_of(path)``: a Python file that is no test, imported; tests are no package."""

    def module_of(path: Path) -> Any:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return module_of


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets that lie beside the checkout, or where $ALIGN_SHARED_DATA says.

    They are no part of the repository; a test that asks for them is skipped where they are absent.
    """
    folder = Path(os.environ.get("ALIGN_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set ALIGN_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as `make smollm2` leaves it, or where $ALIGN_SMOLLM2 says."""
    folder = Path(os.environ.get("ALIGN_SMOLLM2") or ROOT / "models" / "smollm2-135m-instruct")
    if not (folder / "config.json").is_file():
        pytest.skip(f"no model at {folder}: run `make smollm2`")
    return folder


@pytest.fixture(scope="session")
def deepseek_v2() -> Callable[..., dict[str, Any]]:
    """``deepseek_v2(vocab_size=97)``: settings of a small DeepSeek-V2, as of its ``config.json``.

    A dense layer and two of 4 routed and 1 shared expert, 2 of 4 used; MLA is scaled down too. What is
    named replaces what stands here.
    """

    def settings(**changes: Any) -> dict[str, Any]:
        small = {
            "architectures": ["DeepseekV2ForCausalLM"],
            "model_type": "deepseek_v2",
            "vocab_size": 128,
            "hidden_size": 32,
            "intermediate_size": 48,
            "moe_intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "kv_lora_rank": 16,
            "q_lora_rank": None,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
            "topk_method": "greedy",
            "n_group": 1,
            "topk_group": 1,
            "bos_token_id": 0,
            "eos_token_id": 1,
        }
        return small | changes

    return settings


@pytest.fixture(scope="session")
def placement() -> Iterator[Any]:
    """A Ray cluster on this machine, started once, and the slot for trainer and engine on it."""
    from align.cluster.placement import cluster
    from align.config.run import ClusterConfig

    with cluster(ClusterConfig(device="cpu")) as placement:
        yield placement


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a setting without --debug."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGN_DEBUG", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def align(work: Path) -> Callable[..., Any]:
    """``align("sft", "recipe.yaml")`` in this process; has exit_code, stdout and stderr."""
    from typer.testing import CliRunner

    from align.cli.main import app

    def run(*arguments: str | Path, input: str | None = None) -> Any:
        return CliRunner().invoke(app, [str(each) for each in arguments], input=input, prog_name="align")

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a reward file; returns its path."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return str(path)

    return write
