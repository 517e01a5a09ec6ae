"""What an actor meets while it loads comes through with its own words, the file and the key."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from align.cluster.policy_group import PolicyGroup
from align.cluster.remote import opening
from align.config.recipe import GrpoRecipe
from align.errors import AlignError, EngineError, ModelError


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (KeyError("model.norm"), ModelError, "the policy cannot be loaded: KeyError: 'model.norm'"),
        (RuntimeError("\n\nsizes differ\nmore"), ModelError, "RuntimeError: sizes differ"),
        (MemoryError("3 GiB"), EngineError, "the policy does not fit into memory: 3 GiB"),
    ],
)
def test_any_error_gets_a_place_and_a_remedy(error: Exception, kind: type[AlignError], said: str) -> None:
    with pytest.raises(kind) as caught, opening("the policy", file="models/a", key="policy.path"):
        raise error
    assert said in caught.value.message
    assert (caught.value.file, caught.value.key) == ("models/a", "policy.path")
    assert caught.value.remedy


def test_errors_of_align_stay_as_they_are() -> None:
    error = ModelError("no config.json", file="b", key="policy.tokenizer")
    with pytest.raises(ModelError) as caught, opening("the policy", file="a", key="policy.path"):
        raise error
    assert caught.value is error


def test_a_model_without_weights_is_named_by_the_actor_that_loads_it(
    placement: Any, tmp_path: Path, repo_root: Path
) -> None:
    folder = shutil.copytree(repo_root / "recipes/quickstart/policy", tmp_path / "bare")
    recipe = GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "bare",
            "policy": {"path": str(folder), "dtype": "float32"},
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
        }
    )
    with pytest.raises(ModelError) as caught:
        PolicyGroup.start(placement, recipe, None)
    assert str(folder) in str(caught.value)
    assert "weights" in str(caught.value) or "model.safetensors" in str(caught.value)
    assert "reason known" not in str(caught.value)
