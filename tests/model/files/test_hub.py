"""The files of a model that is named by its hub id."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, DeepseekV2Config

from align.config.policy import PolicyConfig
from align.model.files.hub import fetched
from align.model.files.load_parts import can_load_in_parts

NAME = "someone/a-model"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deepseek_v2) -> Path:
    """A model in the hub's cache, laid out as the hub's library does it, on a machine without network."""
    snapshot = tmp_path / "models--someone--a-model/snapshots/1234"
    (tmp_path / "models--someone--a-model/refs").mkdir(parents=True)
    (tmp_path / "models--someone--a-model/refs/main").write_text("1234")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(DeepseekV2Config(**deepseek_v2())).save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


def test_ranks_read_their_parts_from_the_cache(cached: Path) -> None:
    assert fetched(NAME) == cached
    assert can_load_in_parts(PolicyConfig(path=NAME))


def test_a_directory_is_itself_and_what_is_nowhere_is_nothing(cached: Path, tmp_path: Path) -> None:
    assert fetched(str(tmp_path)) == tmp_path
    assert fetched("someone/another-model") is None
    assert fetched(str(tmp_path / "none")) is None
