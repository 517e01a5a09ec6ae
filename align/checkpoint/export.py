"""Any model that align knows, as one directory that transformers and vLLM load unchanged."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from align.checkpoint.gguf import load_gguf
from align.checkpoint.store import CheckpointStore, open_checkpoint
from align.config.policy import Dtype
from align.errors import ModelError
from align.weights.headers import stored_tensors
from align.weights.loaded import first_line, is_reward_model, quietly, refuse_incomplete
from align.weights.modes import open_weights
from align.weights.vocabulary import check_vocabulary

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def export(source: Path | str, out: Path | str, *, dtype: Dtype = "bfloat16") -> Path:
    """Write weights under Hugging Face names (experts apart, adapters merged), config and tokenizer.

    Args:
        source: a run directory (its final model, else its latest checkpoint), a checkpoint, a
            model or adapter directory, or a ``.gguf`` file.
        out: directory to write; it must not hold anything yet.
        dtype: type of the written weights.

    Returns:
        ``out``, complete: it is written aside and renamed.

    Raises:
        ModelError: nothing to export at ``source``, weights that are not all there, no tokenizer that goes
            with them, or ``out`` is taken.
        CheckpointError: the checkpoint to export is corrupt.
    """
    import torch

    source, out = Path(source), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError("the output directory is not empty", file=out, remedy="name another --out")
    kind = getattr(torch, dtype)
    if source.suffix == ".gguf" and source.is_file():
        model, tokenizer = load_gguf(source, kind)
    else:
        folder = find_model(source)
        model, base = _load(folder, kind)
        tokenizer = _load_tokenizer(source, folder, base)
    check_vocabulary(tokenizer, model.config, file=source)
    _settle(model, tokenizer)
    _write(model, tokenizer, out)
    return out


def find_model(source: Path) -> Path:
    """The directory with the weights (or the adapter) behind a run, a checkpoint or a model.

    Raises:
        ModelError: there is none.
        CheckpointError: it is in a corrupt checkpoint.
    """
    if _holds_model(source):
        return source
    if (source / "manifest.json").is_file():
        open_checkpoint(source).verify()
        if _holds_model(source / "model"):
            return source / "model"
    if _holds_model(source / "final"):
        return source / "final"
    if (source / "checkpoints").is_dir():
        latest = CheckpointStore.latest_of(source / "checkpoints")
        if latest is not None:
            return find_model(latest.path)
    if not source.exists():
        raise ModelError("no such file or directory", file=source, remedy="check the path")
    raise ModelError(
        "no model in here: neither a run, a checkpoint, a model directory nor a .gguf file",
        file=source,
        remedy="name a directory that holds config.json, or a run that has saved a checkpoint",
    )


def _holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def _load(folder: Path, dtype: Any) -> tuple[Any, Path | None]:
    """The model, adapters merged, and the adapters' base directory if there is one."""
    import torch

    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        return _weights(folder, dtype), None
    try:
        name = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"unreadable adapter configuration: {error}", file=adapter, remedy="copy the adapter again"
        ) from error
    if not name:
        raise ModelError(
            "the adapter does not name its base model",
            file=adapter,
            key="base_model_name_or_path",
            remedy="set it to the directory of the base model",
        )
    base = Path(name)
    # Merged in fp32: in bf16 a small update would be rounded twice.
    return _adapted(_weights(base, torch.float32), folder).to(dtype), base


def _weights(folder: Path, dtype: Any) -> Any:
    """A whole model: a language model, or a reward model with its head."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    config = _pretrained(AutoConfig, folder)
    if folder.is_dir():
        stored_tensors(folder)
    kind = AutoModelForSequenceClassification if is_reward_model(config) else AutoModelForCausalLM
    with quietly():
        model, info = _pretrained(
            kind, folder, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    refuse_incomplete(info, model, file=folder, key=None)
    return model


def _adapted(model: Any, folder: Path) -> Any:
    """The model with the adapters of a directory merged in."""
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, str(folder))
        except Exception as error:  # another base, a damaged file: peft raises whatever comes up
            raise ModelError(
                f"the adapter does not fit its base model: {first_line(error)}",
                file=folder,
                remedy="check base_model_name_or_path in adapter_config.json and that all files are there",
            ) from error
    lacking = [str(each.message) for each in said if "missing adapter keys" in str(each.message)]
    if lacking:  # peft goes on with adapters that do nothing
        raise ModelError(
            f"the adapter lacks weights: {lacking[0][:300]}", file=folder, remedy="copy the adapter again"
        )
    return adapted.merge_and_unload()


def _load_tokenizer(source: Path, folder: Path, base: Path | None) -> Any:
    from transformers import AutoTokenizer

    places = [place for place in (folder, source / "final", base) if place is not None]
    for place in places:
        if any((place / name).is_file() for name in _TOKENIZER_FILES):
            return _pretrained(AutoTokenizer, place)
    raise ModelError(
        "no tokenizer beside the model", file=folder, remedy="copy tokenizer.json and its config there"
    )


def _pretrained(loader: Any, folder: Path, **settings: Any) -> Any:
    try:
        return loader.from_pretrained(str(folder), **settings)
    except Exception as error:  # a damaged file fails with whatever its reader raises
        raise ModelError(
            f"transformers cannot load it: {first_line(error)}",
            file=folder,
            remedy="check that the directory is whole",
        ) from error


def _settle(model: Any, tokenizer: Any) -> None:
    """What either engine needs said in the configuration."""
    if getattr(model.config, "n_routed_experts", None):
        model.config.moe_router_dtype = "float32"  # else vLLM routes in the model's type
    settings = getattr(model, "generation_config", None)
    if settings is None:  # a reward model writes nothing
        return
    if settings.eos_token_id is None:
        settings.eos_token_id = tokenizer.eos_token_id
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id


def _write(model: Any, tokenizer: Any, out: Path) -> None:
    aside = out.parent / f".tmp-{out.name}-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        model.save_pretrained(aside, max_shard_size="5GB")
        tokenizer.save_pretrained(aside)
        open_weights(aside)
        if out.exists():
            out.rmdir()
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
