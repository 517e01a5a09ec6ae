"""Model directories that transformers and vLLM load unchanged."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from align.model.files.hf_stream import base_model, hf_stream
from align.weights.modes import open_weights

FILE_BYTES = 5_000_000_000
"""Largest file of weights."""


def writable_generation(config: Any) -> Any:
    """A generation configuration that transformers agrees to write.

    Published ones often have a temperature or top_p beside ``do_sample: false``, which is read without a word
    and refused when it is written. They sample, as their numbers say; what is still refused is left out.
    """
    config = copy.deepcopy(config)
    try:
        config.validate(strict=True)
        return config
    except ValueError:
        config.do_sample = True
    try:
        config.validate(strict=True)
        return config
    except ValueError:
        kept = ("bos_token_id", "eos_token_id", "pad_token_id")
        return type(config)(**{name: getattr(config, name) for name in kept})


def save_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    write: bool = True,
) -> None:
    """Write weights (adapters merged, experts apart), configuration and tokenizer.

    The weights go through the same stream that feeds the rollout engine. That they load again is checked
    where a run starts, by :func:`align.model.files.check.check_model`. One file's worth of them is held at a
    time.

    Args:
        model: a transformers model, or a peft model around one; all ranks of a sharded one call together.
        tokenizer: its tokenizer, chat template included.
        folder: made if missing.
        dtype: of the weights; default: their own.
        write: False on ranks that only help to gather.
    """
    base = base_model(model)
    pairs = hf_stream(model, dtype=dtype)
    if not write:
        for _ in pairs:
            pass
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(pairs, folder)
    config = base.config.__class__.from_dict(base.config.to_dict())
    config.architectures = [_architecture(base)]
    config.dtype = dtype or next(base.parameters()).dtype
    config.use_cache = True
    config.save_pretrained(folder)
    if base.generation_config is not None:
        writable_generation(base.generation_config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    open_weights(folder)


def _architecture(base: Any) -> str:
    """Name of its class; sharding puts one of its own before it."""
    return next(kind.__name__ for kind in type(base).__mro__ if kind.__module__.startswith("transformers"))


def write_weights(pairs: Iterable[tuple[str, Tensor]], folder: Path, limit: int = FILE_BYTES) -> None:
    """Write tensors as a model directory has them: one file, or several and an index.

    Args:
        pairs: (checkpoint name, tensor).
        folder: is there.
        limit: bytes of a file; a larger tensor has one of its own.
    """
    held: dict[str, Tensor] = {}
    written: list[list[str]] = []
    size = total = 0

    def flush() -> None:
        nonlocal held, size
        if held:
            save_file(held, folder / _part(len(written)), {"format": "pt"})
            written.append(list(held))
        held, size = {}, 0

    for name, tensor in pairs:
        if size + tensor.nbytes > limit:
            flush()
        # Split experts are views of one storage, which safetensors refuses.
        held[name] = tensor.cpu().clone(memory_format=torch.contiguous_format)
        size, total = size + tensor.nbytes, total + tensor.nbytes
    flush()
    if len(written) == 1:
        (folder / _part(0)).rename(folder / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, names in enumerate(written):
        file = f"model-{number + 1:05}-of-{len(written):05}.safetensors"
        (folder / _part(number)).rename(folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _part(number: int) -> str:
    return f"part-{number:05}.safetensors"
