from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from align.chat.decode import decoded

WORDS = ["<s>", "</s>", "<pad>", "<think>", "</think>", "so", "four"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="so"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    made.add_tokens([AddedToken(word, special=True) for word in ("<think>", "</think>")], special_tokens=True)
    return made


def test_special_tokens_stay_out_unless_they_are_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.convert_tokens_to_ids(["<s>", "<think>", "so", "</think>", "four", "</s>", "<pad>"])
    assert decoded(tokenizer, ids).split() == ["so", "four"]
    assert decoded(tokenizer, ids, keep_special=True).split() == ["<think>", "so", "</think>", "four"]
