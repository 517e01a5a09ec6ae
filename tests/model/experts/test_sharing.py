"""Which policies' experts can be shared by how many ranks: said before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import DeepseekV2Config, LlamaConfig, MixtralConfig

from align.errors import RecipeError
from align.model.experts.sharing import check_expert_parallel

FILE = Path("recipe.yaml")


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (LlamaConfig(), 1),
        (DeepseekV2Config(n_routed_experts=160), 8),
        (DeepseekV2Config(n_routed_experts=6), 3),
        (MixtralConfig(num_local_experts=8), 4),
    ],
)
def test_experts_that_divide(config, size: int) -> None:
    check_expert_parallel(config, size, file=FILE)


@pytest.mark.parametrize(
    ("config", "size", "said", "remedy"),
    [
        (LlamaConfig(), 2, "llama policies have no routed experts", "leave it out"),
        (MixtralConfig(num_local_experts=0), 2, "mixtral policies have no routed experts", "leave it out"),
        (DeepseekV2Config(n_routed_experts=160), 3, "160 experts .* by 3 ranks", "a divisor of 160"),
        (MixtralConfig(num_local_experts=8), 16, "8 experts .* by 16 ranks", "a divisor of 8"),
    ],
)
def test_others_are_refused_with_key_and_remedy(config, size: int, said: str, remedy: str) -> None:
    with pytest.raises(RecipeError, match=said) as found:
        check_expert_parallel(config, size, file=FILE)
    assert found.value.key == "cluster.expert_parallel"
    assert remedy in found.value.remedy
    assert found.value.file == str(FILE)
