"""What transformers says about a load, held to this: every weight of the model came from the files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from align.errors import ModelError

LOADING = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)
"""What transformers raises over files that it cannot read."""

HEAD = "score.weight"
"""Name of a reward model's head, [1, H], in checkpoints."""


def is_reward_model(config: Any) -> bool:
    """Whether a transformers configuration is of a sequence classifier: training goes on with its head."""
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def refuse_incomplete(
    info: Mapping[str, Any],
    model: Any,
    *,
    file: str | Path,
    key: str | None = "policy.path",
    fresh_head: str | None = None,
) -> None:
    """Refuse a load after which weights are made up, or left out.

    transformers warns and goes on: what is missing gets random values. Right are tied weights, which it
    does not count, and what an architecture leaves out by design: it does not count that either, but
    for the layers of DeepSeek-V3 that predict a second token where the model has fewer layers than the
    released one.

    Args:
        info: as of ``from_pretrained(output_loading_info=True, ignore_mismatched_sizes=True)``.
        model: what was loaded.
        file: model directory, for the message.
        key: the recipe's key that names the model.
        fresh_head: the one weight that is new, where a language model becomes a reward model; whatever head
            the files hold is left out.

    Raises:
        ModelError: naming the first tensors at fault.
    """
    body = f"{model.base_model_prefix}."
    missing = sorted(info["missing_keys"] - {fresh_head})
    if missing:
        raise ModelError(
            f"the model lacks weights: {_first(missing)}",
            file=file,
            key=key,
            remedy="name a complete model directory of this architecture",
        )
    if info["mismatched_keys"]:
        name, stored, wanted = sorted(info["mismatched_keys"])[0]
        raise ModelError(
            f"{name} is stored as {list(stored)}, and its config.json asks for {list(wanted)}",
            file=file,
            key=key,
            remedy="use the config.json that belongs to these weights",
        )
    further = _further_layers(info["unexpected_keys"], model.config)
    unused = sorted(
        name
        for name in info["unexpected_keys"]
        if not name.startswith(further) and not (fresh_head and not name.startswith(body))
    )
    if unused:
        raise ModelError(
            f"the files hold weights that {type(model).__name__} does not compute with: {_first(unused)}",
            file=file,
            key=key,
            remedy="use the config.json that belongs to these weights, or take these tensors out",
        )
    head = model.get_output_embeddings()
    tied = head is not None and model.config.get_text_config().tie_word_embeddings
    if tied and head.weight is not model.get_input_embeddings().weight:
        raise untied(file, key)


def untied(file: str | Path, key: str | None = "policy.path") -> ModelError:
    """transformers leaves two different tensors apart where the configuration ties them; engines do not."""
    return ModelError(
        "config.json ties the output head to the embedding, and the files hold two different tensors",
        file=file,
        key=key,
        remedy="set tie_word_embeddings to false in config.json, or leave the head's tensor out of the files",
    )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _further_layers(names: Iterable[str], config: Any) -> tuple[str, ...]:
    """Prefixes of layers past the last that predict further tokens, in a model that says it has some."""
    if not getattr(config, "num_nextn_predict_layers", None):
        return ()
    found = (re.match(r"(.*\blayers\.(\d+)\.)eh_proj\.", name) for name in names)
    return tuple(each[1] for each in found if each and int(each[2]) >= config.num_hidden_layers)


def first_line(error: Exception) -> str:
    """What an error of a library says, without what it adds."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def quietly() -> Iterator[None]:
    """transformers without its tables of lacking weights and its progress bars: the error says it."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
