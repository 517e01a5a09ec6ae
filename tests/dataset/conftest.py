"""Real tokenizers: the quickstart's, and a small one that speaks ChatML."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

POLICY = Path(__file__).parents[2] / "recipes" / "quickstart" / "policy"


@pytest.fixture
def tokenizer() -> Any:
    """The quickstart's tokenizer, fresh."""
    return AutoTokenizer.from_pretrained(POLICY)


@pytest.fixture
def byte_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """``byte_tokenizer(special, plain, eos=…)``: one token per byte, beside tokens of its own list."""

    def build(special: list[str], plain: list[str] | None = None, **names: str) -> PreTrainedTokenizerFast:
        alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        built = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
        built.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\s"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
        built.decoder = decoders.ByteLevel()
        built.add_special_tokens(special)
        built.add_tokens(plain or [])
        return PreTrainedTokenizerFast(tokenizer_object=built, **names)

    return build


@pytest.fixture
def chatml_tokenizer(byte_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """One token per byte, beside <|im_start|> and <|im_end|>; no template."""
    return byte_tokenizer(["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>", pad_token="<|im_end|>")


@pytest.fixture
def pieces() -> Callable[[Any, list[int], list[int]], list[tuple[str, int]]]:
    """Neighbouring tokens with the same mask, as text."""

    def of(tokenizer: Any, ids: list[int], mask: list[int]) -> list[tuple[str, int]]:
        out: list[tuple[list[int], int]] = []
        for token, bit in zip(ids, mask, strict=True):
            if out and out[-1][1] == bit:
                out[-1][0].append(token)
            else:
                out.append(([token], bit))
        return [(tokenizer.decode(tokens), bit) for tokens, bit in out]

    return of


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, list[dict[str, Any]]], str]:
    """Write rows as JSON lines; gives the path."""

    def to(name: str, rows: list[dict[str, Any]]) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return to
