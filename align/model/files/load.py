"""Models and tokenizers from a directory or hub id, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.policy import PolicyConfig
from align.errors import ModelError
from align.model.experts.routers import expert_kernel, experts_of
from align.model.files.agreement import check_architecture
from align.plan.source import read_file
from align.seed import derive_seed
from align.weights.headers import stored_tensors
from align.weights.loaded import LOADING, first_line, quietly, refuse_incomplete
from align.weights.vocabulary import check_vocabulary

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
        ModelError: nothing usable at ``policy.path``; text where its configuration needs a number; or
            the configuration names the architecture of another model type.
    """
    from transformers import AutoConfig

    source = resolve_model(policy.path)
    if (file := Path(source) / "config.json").is_file():
        read_file(file)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=policy.trust_remote_code)
    except Exception as error:  # a configuration class raises whatever its checks do
        raise _unusable("model", source, "policy.path", error) from error
    check_architecture(config, file=file if file.is_file() else source)
    if getattr(config, "n_routed_experts", None):
        config.moe_router_dtype = "float32"
    return config


def plain_config(policy: PolicyConfig) -> Any:
    """As :func:`load_config`, of weights that can be trained and written back.

    Raises:
        ModelError: as there, or the weights are quantised.
    """
    config = load_config(policy)
    _check_shape(config, resolve_model(policy.path))
    if getattr(config, "quantization_config", None):
        raise ModelError(
            "these weights are quantised: they can be neither trained nor written back",
            file=resolve_model(policy.path),
            key="policy.path",
            remedy="name the directory of the weights in bfloat16 or float32",
        )
    return config


def _check_shape(config: Any, source: str) -> None:
    """Refuse numbers that no model can be built or routed with.

    Raises:
        ModelError: naming the first.
    """
    routed = experts_of(config)
    chosen = getattr(config.get_text_config(), "num_experts_per_tok", None)
    if routed and isinstance(chosen, int) and not 1 <= chosen <= routed:
        raise ModelError(
            f"{chosen} of {routed} experts cannot be chosen for a token",
            file=Path(source) / "config.json" if Path(source).is_dir() else source,
            key="num_experts_per_tok",
            remedy=f"set it between 1 and {routed}",
        )


def load_tokenizer(policy: PolicyConfig) -> PreTrainedTokenizerBase:
    """The policy's tokenizer, with a padding token.

    Raises:
        ModelError: the directory has no tokenizer, or the tokenizer no end-of-sequence token; or it has
            tokens that the model has no embedding for.
    """
    from transformers import AutoTokenizer

    source = policy.tokenizer or policy.path
    if not _has_tokenizer(Path(source)):
        source = resolve_model(source)
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
    except Exception as error:  # a damaged tokenizer.json raises a bare Exception
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
    check_vocabulary(tokenizer, load_config(policy), file=source, key=key)
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
        ModelError: nothing usable at ``policy.path``, or not every weight of the model is there.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype: torch.dtype = getattr(torch, policy.dtype)
    if policy.init == "random":
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "init"))
            model = build_model(policy, dtype)
    else:
        source = resolve_model(policy.path)
        if Path(source).is_dir():
            stored_tensors(Path(source))
        config = plain_config(policy)
        try:
            with quietly():
                model, info = AutoModelForCausalLM.from_pretrained(
                    source,
                    config=config,
                    dtype=dtype,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    **_extra(config, policy),
                )
        except LOADING as error:
            raise _unusable("model", source, "policy.path", error) from error
        refuse_incomplete(info, model, file=source)
    return _for_training(model, policy).to(device)


def build_model(policy: PolicyConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The policy's model with fresh weights, from its configuration alone.

    Raises:
        ModelError: nothing usable at ``policy.path``.
    """
    from transformers import AutoModelForCausalLM

    config = plain_config(policy)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, **_extra(config, policy))
    return _for_training(model, policy)


def _extra(config: Any, policy: PolicyConfig) -> dict[str, Any]:
    return {"trust_remote_code": policy.trust_remote_code} | expert_kernel(config, policy.experts)


def _for_training(model: PreTrainedModel, policy: PolicyConfig) -> PreTrainedModel:
    if policy.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    return model


def _unusable(what: str, source: str, key: str, error: Exception) -> ModelError:
    reason = first_line(error)
    if Path(source).is_dir():
        return ModelError(f"cannot read the {what}: {reason}", file=source, key=key, remedy="check the files")
    return ModelError(
        f"cannot fetch the {what} {source!r}: {reason}",
        key=key,
        remedy=f"check the name and the network, or set {key} to a local directory",
    )
