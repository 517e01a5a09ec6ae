"""Tokens to the text of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def decoded(tokenizer: Any, tokens: Sequence[int], *, keep_special: bool = False) -> str:
    """The text of an answer's tokens.

    Args:
        tokenizer: of transformers.
        tokens: [T] ints.
        keep_special: leave special tokens in, but for those that begin, end and pad texts: a policy that
            thinks between special tokens is judged by them (``rollout.keep_special_tokens``).
    """
    if not keep_special:
        return str(tokenizer.decode(tokens, skip_special_tokens=True))
    frame = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return str(tokenizer.decode([each for each in tokens if each not in frame], skip_special_tokens=False))
