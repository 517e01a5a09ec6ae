"""Low-rank adapters through peft."""

from __future__ import annotations

from typing import Any

from align.config.policy import LoraConfig
from align.errors import RecipeError


def add_lora(model: Any, lora: LoraConfig) -> Any:
    """Wrap ``model`` so that only adapters train.

    Routers and fused experts never get one: their weights are not linear layers, and the rollout
    engine must see exactly what was trained.

    Raises:
        RecipeError: a target module does not exist in the model.
    """
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    settings = PeftLora(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=r".*\.mlp\.(gate|experts)(\..*)?",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, settings, autocast_adapter_dtype=False)
    except ValueError as error:
        raise RecipeError(
            str(error).splitlines()[0],
            key="policy.lora.target_modules",
            remedy="name linear layers of the model, or use all-linear",
        ) from error
