"""A GGUF file (llama.cpp) as a plain transformers model and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from align.errors import ModelError
from align.weights.loaded import quietly, refuse_incomplete


def load_gguf(file: Path, dtype: Any) -> tuple[Any, Any]:
    """Dequantise a GGUF file.

    Args:
        file: the ``.gguf`` file.
        dtype: torch dtype of the weights.

    Returns:
        A causal language model that carries no trace of quantisation, and its tokenizer with the
        chat template of the file.

    Raises:
        ModelError: no reader is installed, the file's architecture is not supported, or weights are missing.
    """
    try:
        import gguf  # noqa: F401  transformers' own message names neither the file nor the package
    except ImportError as error:
        raise ModelError(
            "reading GGUF needs the package gguf", file=file, remedy="pip install gguf"
        ) from error
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        with quietly():
            packed, info = AutoModelForCausalLM.from_pretrained(
                **source,
                dtype=dtype,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except Exception as error:  # a damaged file fails anywhere in the parser, with any type
        raise ModelError(
            f"transformers cannot read this GGUF file: {error}",
            file=file,
            remedy="export from the original Hugging Face directory",
        ) from error
    refuse_incomplete(info, packed, file=file, key=None)
    config = packed.config
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config
    # A fresh model: the loaded one would be saved as a quantised one.
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(packed.state_dict())
    model.generation_config = GenerationConfig.from_model_config(config)
    tokenizer.model_max_length = config.max_position_embeddings
    for name in ("is_local", "local_files_only"):  # facts about this machine, not the tokenizer
        tokenizer.init_kwargs.pop(name, None)
    _drop_foreign(tokenizer, config.vocab_size)
    _restore_pre_tokenizer(tokenizer, file)
    return model, tokenizer


def _drop_foreign(tokenizer: Any, rows: int) -> None:
    """transformers gives a vocabulary without ``<|endoftext|>`` one, past the embedding's last row."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [each for each in state["added_tokens"] if each["id"] < rows]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


def _restore_pre_tokenizer(tokenizer: Any, file: Path) -> None:
    """GGUF names the splitting rule, transformers always takes plain byte-level splitting.

    Without this, blanks before a digit come out as other tokens than the model was trained on.
    """
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(str(file)).fields.get("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
