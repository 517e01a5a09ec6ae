"""A tokenizer held against the embedding of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.errors import ModelError


def check_vocabulary(tokenizer: Any, config: Any, *, file: str | Path, key: str | None = None) -> None:
    """Check that every token has a row in the embedding. Rows without a token are padding.

    A special token without one is no fault unless the chat template writes it: what a message spells is
    text, so nothing else brings it in (Gemma 3's text models carry the image token of their siblings).

    Args:
        tokenizer: added tokens count.
        config: the model's.
        file: of the tokenizer, for the message.
        key: the recipe's key that names it.

    Raises:
        ModelError: naming the first token without a row.
    """
    rows = config.get_text_config().vocab_size
    special, template = set(tokenizer.all_special_tokens), str(tokenizer.chat_template or "")
    special -= {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    beyond = sorted(
        (index, token)
        for token, index in tokenizer.get_vocab().items()
        if index >= rows and (token not in special or token in template)
    )
    if beyond:
        index, token = beyond[0]
        raise ModelError(
            f"the tokenizer has tokens that the model has no embedding for: {len(beyond)} beyond the "
            f"embedding's {rows} rows, the first is {token!r} (id {index})",
            file=file,
            key=key,
            remedy="use the model's own tokenizer, or take the added tokens out of it",
        )
