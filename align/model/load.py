"""Models and tokenizers from a directory or hub id, checked before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.policy import PolicyConfig
from align.errors import ModelError
from align.seed import derive_seed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def resolve_model(path: str) -> str:
    """The model behind a path: a run directory stands for its ``final`` model.

    Raises:
        ModelError: the path is a local directory without a model in it, or a local path that
            does not exist.
    """
    folder = Path(path)
    if not folder.exists():
        looks_local = path.startswith(("/", "./", "../", "~")) or path.count("/") != 1
        if looks_local:
            raise ModelError("no such model directory", file=path, remedy="check policy.path")
        return path
    if (folder / "config.json").is_file():
        return str(folder)
    for inner in ("final", "model"):
        if (folder / inner / "config.json").is_file():
            return str(folder / inner)
    if (folder / "resolved.yaml").is_file():
        raise ModelError(
            "this run has not finished: it has no final model",
            file=path,
            remedy="finish it with --resume, or name one of its checkpoints/step-*/ directories",
        )
    raise ModelError("no config.json in this directory", file=path, remedy="name a model directory")


def load_config(policy: PolicyConfig) -> Any:
    """The transformers configuration of the policy, with what align needs set on it.

    DeepSeek-V2's released gate computes in fp32; vLLM does so only when the configuration says
    ``moe_router_dtype: float32``, so it is always set (otherwise the two sides route differently).

    Raises:
        ModelError: nothing usable at ``policy.path``.
    """
    from transformers import AutoConfig

    source = resolve_model(policy.path)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=policy.trust_remote_code)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise _unusable("model", source, "policy.path", error) from error
    if getattr(config, "n_routed_experts", None):
        config.moe_router_dtype = "float32"
    return config


def load_tokenizer(policy: PolicyConfig) -> PreTrainedTokenizerBase:
    """The policy's tokenizer, with a padding token.

    Raises:
        ModelError: the directory has no tokenizer, or the tokenizer no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    source = resolve_model(policy.tokenizer or policy.path)
    key = "policy.tokenizer" if policy.tokenizer else "policy.path"
    if Path(source).is_dir() and not _has_tokenizer(Path(source)):
        raise ModelError(
            "this model directory has no tokenizer",
            file=source,
            key=key,
            remedy="set policy.tokenizer to a directory or hub id that has one",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=policy.trust_remote_code)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise _unusable("tokenizer", source, key, error) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the tokenizer has no end-of-sequence token, so no answer could ever end",
            file=source,
            key=key,
            remedy="set eos_token in its tokenizer_config.json",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _has_tokenizer(folder: Path) -> bool:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    return any((folder / name).is_file() for name in names)


def load_model(policy: PolicyConfig, *, seed: int, device: str = "cpu") -> PreTrainedModel:
    """The policy's weights in ``policy.dtype`` on ``device``, without adapters.

    Args:
        policy: which model.
        seed: run seed; fresh weights (``init: random``) derive from it.
        device: ``cpu`` or ``cuda[:n]``.

    Raises:
        ModelError: nothing usable at ``policy.path``.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(policy)
    dtype: torch.dtype = getattr(torch, policy.dtype)
    extra: dict[str, Any] = {"trust_remote_code": policy.trust_remote_code}
    if getattr(config, "n_routed_experts", None):
        extra["experts_implementation"] = policy.experts
    if policy.init == "random":
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "init"))
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, **extra)
    else:
        source = resolve_model(policy.path)
        try:
            model = AutoModelForCausalLM.from_pretrained(source, config=config, dtype=dtype, **extra)
        except (OSError, ValueError) as error:
            raise _unusable("model", source, "policy.path", error) from error
    if policy.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    return model.to(device)


def _unusable(what: str, source: str, key: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(source).is_dir():
        return ModelError(f"cannot read the {what}: {reason}", file=source, key=key, remedy="check the files")
    return ModelError(
        f"cannot fetch the {what} {source!r}: {reason}",
        key=key,
        remedy=f"check the name and the network, or set {key} to a local directory",
    )
