"""The keys of all recipes: frozen, documented, and described with their real defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.config.knobs import Knob, field_at, knobs, section_at
from align.config.optim import OptimConfig
from align.config.policy import LoraConfig
from align.config.recipe import KINDS, GrpoRecipe, SftRecipe
from align.config.rewards import TermConfig


def test_the_keys_are_frozen(module_of) -> None:
    freezer = module_of(Path(__file__).with_name("freeze_knobs.py"))
    frozen = set(freezer.FROZEN.read_text(encoding="utf-8").splitlines())
    now = set(freezer.current())
    changes = [f"  + {line}" for line in sorted(now - frozen)] + [
        f"  - {line}" for line in sorted(frozen - now)
    ]
    assert not changes, (
        "the recipe keys changed:\n"
        + "\n".join(changes)
        + "\nEvery key is a promise to users and a setting that somebody must understand. If it is wanted, "
        "say why in the commit and run: python tests/config/freeze_knobs.py"
    )


def _described(kind: str) -> dict[str, Knob]:
    return {knob.key: knob for knob in knobs(KINDS[kind])}


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_documented(kind: str) -> None:
    bare = [knob.key for knob in knobs(KINDS[kind]) if not knob.help and knob.key != "kind"]
    assert bare == []


def test_types_defaults_and_required() -> None:
    found = _described("grpo")
    assert (found["grpo.steps"].type, found["grpo.steps"].default) == ("int ≥ 1", "100")
    assert (found["policy.path"].type, found["policy.path"].default) == ("str", "required")
    assert (found["optim.lr"].type, found["optim.lr"].default) == ("float > 0", "1e-06")
    assert found["policy.lora"].default == "null"
    assert found["policy.lora.dropout"].type == "float ≥ 0 and < 1"
    assert found["data.parts.<name>.limit"].type == "int ≥ 1 | null"
    assert found["grpo.kl"].type == "k1 | k2 | k3"
    assert found["rewards.terms"].default == "required"
    assert found["rewards.terms.<name>.clip"].type == "tuple[float, float] | null"
    assert found["optim.betas"].default == "[0.9, 0.95]"
    assert found["data.parts"].is_section
    assert not found["grpo.steps"].is_section


def test_a_default_is_that_of_its_recipe_not_of_its_class() -> None:
    assert _described("sft")["optim.schedule"].default == "cosine"
    assert _described("grpo")["optim.schedule"].default == "constant"


def test_described_defaults_are_what_a_recipe_gets() -> None:
    """Build the smallest recipe and compare every leaf with its description."""
    from align.config import yaml12

    recipe = SftRecipe.model_validate({"kind": "sft", "name": "x", "policy": {"path": "m"}, "data": {}})
    for key, knob in _described("sft").items():
        if knob.is_section or knob.default == "required" or "<name>" in key or key.startswith("policy.lora."):
            continue
        value: Any = recipe
        for step in key.split("."):
            value = getattr(value, step)
        expected = yaml12.parse(knob.default)
        assert (list(value) if isinstance(value, tuple) else value) == expected, key


def test_walking_to_a_key() -> None:
    assert section_at(GrpoRecipe, []) is GrpoRecipe
    assert section_at(GrpoRecipe, ["policy", "lora"]) is LoraConfig
    assert section_at(GrpoRecipe, ["rewards", "terms", "any name"]) is TermConfig
    assert section_at(GrpoRecipe, ["optim"]) is OptimConfig
    assert section_at(GrpoRecipe, ["optim", "lr"]) is None
    assert section_at(GrpoRecipe, ["nowhere", "at", "all"]) is None
    weight = field_at(GrpoRecipe, ["rewards", "terms", "any name", "weight"])
    assert weight is not None
    assert weight.default == 1.0
    assert field_at(GrpoRecipe, ["rewards", "terms", "any name"]) is None
    assert field_at(GrpoRecipe, []) is None
