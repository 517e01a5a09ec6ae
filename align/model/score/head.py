"""A causal language model as a reward model: its body, and a linear head that gives one number.

The number is read at the last token of a conversation as the chat template writes it. transformers
finds that place as the last token that is not padding, so the padding token must be one that no
conversation ends with; DeepSeek pads with the token that ends every answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.config.policy import LoraConfig, PolicyConfig
from align.errors import ModelError
from align.model.experts.routers import expert_kernel
from align.model.files.load import _unusable, plain_config, resolve_model
from align.model.files.lora import _targets
from align.seed import derive_seed
from align.weights.headers import stored_tensors
from align.weights.loaded import HEAD as HEAD
from align.weights.loaded import LOADING, quietly, refuse_incomplete
from align.weights.loaded import is_reward_model as is_reward_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pad_apart(tokenizer: PreTrainedTokenizerBase, last: int) -> None:
    """Make sure that the padding token is not ``last``, the token that ends every conversation.

    The begin-of-sequence token takes its place where it is: it never ends a conversation.

    Raises:
        ModelError: there is no other special token.
    """
    if tokenizer.pad_token_id != last:
        return
    names = [tokenizer.bos_token, tokenizer.unk_token, *tokenizer.all_special_tokens]
    other = next((name for name in names if name and tokenizer.convert_tokens_to_ids(name) != last), None)
    if other is None:
        raise ModelError(
            "every conversation ends with the padding token, and there is no other special token to pad with",
            file=tokenizer.name_or_path or None,
            key="policy.tokenizer",
            remedy="set pad_token in its tokenizer_config.json to a token of its own",
        )
    tokenizer.pad_token = other


def load_score_model(policy: PolicyConfig, *, seed: int, pad: int, device: str = "cpu") -> Any:
    """The policy's body with a score head, in ``policy.dtype`` on ``device``, without adapters.

    A fresh head is zero: it decides nothing before it has seen data, and needs no seed. A reward model
    keeps its own.

    Args:
        policy: which model: a causal language model or a reward model.
        seed: run seed; fresh weights (``init: random``) derive from it.
        pad: padding token id.
        device: ``cpu`` or ``cuda[:n]``.

    Raises:
        ModelError: nothing usable at ``policy.path``; its architecture has no sequence classifier; it is
            a classifier with several labels; not every weight of the model is there.
    """
    from transformers import AutoModelForSequenceClassification

    config = plain_config(policy)
    fresh = policy.init == "random" or not is_reward_model(config)
    if not fresh and config.num_labels != 1:
        raise ModelError(
            f"this is a classifier with {config.num_labels} labels, not a reward model",
            file=resolve_model(policy.path),
            key="policy.path",
            remedy="name a causal language model or a reward model",
        )
    config.num_labels = 1
    config.problem_type = "regression"  # raw scores from transformers and vLLM alike
    config.pad_token_id = pad
    extra: dict[str, Any] = {"trust_remote_code": policy.trust_remote_code}
    extra |= expert_kernel(config, policy.experts)
    dtype = getattr(torch, policy.dtype)
    source = resolve_model(policy.path)
    try:
        if policy.init == "random":
            with torch.random.fork_rng():
                torch.manual_seed(derive_seed(seed, "init"))
                model = AutoModelForSequenceClassification.from_config(config, dtype=dtype, **extra)
        else:
            if Path(source).is_dir():
                stored_tensors(Path(source))
            with quietly():
                model, info = AutoModelForSequenceClassification.from_pretrained(
                    source,
                    config=config,
                    dtype=dtype,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    **extra,
                )
            refuse_incomplete(info, model, file=source, fresh_head=HEAD if fresh else None)
    except LOADING as error:
        raise _unusable("model", source, "policy.path", error) from error
    if fresh:
        torch.nn.init.zeros_(model.score.weight)
    if policy.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    model.generation_config = None  # it writes nothing; where a policy is saved, this is asked for
    return model.to(device)


def add_score_lora(model: Any, lora: LoraConfig) -> Any:
    """Wrap a reward model so that adapters on its body train, and its head in full.

    Adapters as in :func:`align.model.files.lora.add_lora`. The head is no adapter and no copy, so that
    ``hf_stream`` names it as checkpoints do.

    Raises:
        RecipeError: a target module is no linear layer of the model.
    """
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    prefix = model.base_model_prefix
    settings = PeftLora(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=[f"{prefix}.{name}" for name in _targets(getattr(model, prefix), lora)],
    )
    wrapped = get_peft_model(model, settings, autocast_adapter_dtype=False)
    model.score.weight.requires_grad_(True)
    return wrapped
