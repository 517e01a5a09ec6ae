from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, DeepseekV2ForCausalLM, LlamaConfig, LlamaForCausalLM

from align.algo.router import expert_balance_loss
from align.config.sft import SftConfig
from align.model.experts.routers import RouterRecorder
from align.train.sft.batches import IGNORED, Collator, flatten, pack, training_rows

EOS = 1


def conversation(length: int, prompt: int = 2, first: int = 10) -> dict[str, list[int]]:
    """``prompt`` tokens of context, then trained ones that end with EOS."""
    ids = [*range(first, first + length - 1), EOS]
    return {"input_ids": ids, "assistant_masks": [0] * prompt + [1] * (length - prompt)}


def dataset(*lengths: int) -> Dataset:
    return Dataset.from_list([conversation(length, first=10 * (i + 1)) for i, length in enumerate(lengths)])


def test_the_stop_token_is_trained_though_it_pads():
    batch = Collator(pad_token_id=EOS)([conversation(5), conversation(3)])
    assert batch["input_ids"].tolist() == [[10, 11, 12, 13, EOS], [10, 11, EOS, EOS, EOS]]
    assert batch["labels"].tolist() == [
        [IGNORED, IGNORED, 12, 13, EOS],
        [IGNORED, IGNORED, EOS, IGNORED, IGNORED],
    ]
    assert batch["segments"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4]] * 2


def test_packed_rows_start_anew():
    rows = pack(dataset(4, 3, 2), max_length=10)
    assert len(rows) == 1
    batch = Collator(pad_token_id=0)([*rows, conversation(10)])
    assert batch["segments"][0].tolist() == [1, 1, 1, 1, 2, 2, 2, 3, 3, 0]
    assert batch["position_ids"][0].tolist()[:9] == [0, 1, 2, 3, 0, 1, 2, 0, 1]


def test_nothing_predicts_the_first_token_of_a_packed_conversation():
    row = {"input_ids": [5, 6, 7, 8], "assistant_masks": [1, 1, 1, 1], "seq_lengths": [2, 2]}
    assert Collator(0)([row])["labels"].tolist() == [[IGNORED, 6, IGNORED, 8]]


def test_epochs_follow_one_another_and_the_last_may_be_partial():
    rows = training_rows(lambda number: dataset(*[number + 3] * 4), SftConfig(epochs=1.5), seed=0)
    assert [len(row) for row in rows["input_ids"]] == [3, 3, 3, 3, 4, 4]


def test_no_more_epochs_are_made_than_the_steps_need():
    made = []

    def epoch(number: int) -> Dataset:
        made.append(number)
        return dataset(3, 3, 3, 3)

    rows = training_rows(epoch, SftConfig(epochs=10), seed=0, enough=6)
    assert made == [0, 1]
    assert len(rows) == 6


def test_packing_keeps_every_conversation_whole():
    lengths = [7, 3, 9, 2, 5, 4, 8, 6]
    settings = SftConfig(epochs=1, packing=True, max_length=16)
    rows = training_rows(lambda number: dataset(*lengths), settings, seed=3)
    seen = []
    for row in rows:
        start = 0
        for length in row["seq_lengths"]:
            seen.append(row["input_ids"][start : start + length].tolist())
            start += length
        assert start == len(row["input_ids"]) <= 16
    assert sorted(seen) == sorted(dataset(*lengths)["input_ids"])


def test_packed_rows_are_shuffled_by_the_seed():
    settings = SftConfig(epochs=1, packing=True, max_length=8)
    order = [
        [
            row.tolist()
            for row in training_rows(lambda n: dataset(*range(3, 9)), settings, seed=seed)["input_ids"]
        ]
        for seed in (0, 0, 1)
    ]
    assert order[0] == order[1] != order[2]


def moe(deepseek_v2: Any) -> Any:
    return DeepseekV2ForCausalLM(AutoConfig.for_model(**deepseek_v2(initializer_range=0.3)))


def dense(_: Any) -> Any:
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("build", [moe, dense])
def test_packed_and_unpacked_rows_give_the_same_loss_and_gradient(
    build: Any, attention: str, deepseek_v2: Any
):
    torch.manual_seed(0)
    model = build(deepseek_v2)
    model.set_attn_implementation(attention)
    recorder = RouterRecorder(model) if build is moe else None
    rows = dataset(7, 5, 6, 3)
    packed = pack(rows, max_length=12)
    assert 1 < len(packed) < 4
    results = []
    for batch in (Collator(EOS)(list(rows)), Collator(EOS)(list(packed))):
        model.zero_grad()
        inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
        if recorder:
            with recorder.record():
                logits = model(**inputs, use_cache=False).logits
            routing = recorder.routing(len(batch["segments"]))
            balance = expert_balance_loss(*routing, batch["segments"])
        else:
            logits, balance = model(**inputs, use_cache=False).logits, torch.zeros(1)
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED
        )
        (loss + balance.sum()).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), balance.detach(), gradients))
    (loss, balance, gradients), (packed_loss, packed_balance, packed_gradients) = results
    torch.testing.assert_close(packed_loss, loss)
    torch.testing.assert_close(packed_balance, balance)
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_flatten_leaves_padding_out_and_numbers_the_conversations_of_all_rows():
    rows = [
        {"input_ids": [5, 6, 7, 8], "assistant_masks": [0, 1, 0, 1], "seq_lengths": [2, 2]},
        {"input_ids": [9, 10, 11], "assistant_masks": [0, 1, 1]},
    ]
    batch = Collator(pad_token_id=0)(rows)
    inputs, segments = flatten(batch, batch.pop("segments"))
    assert inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 11]]
    assert inputs["position_ids"].tolist() == [[0, 1, 0, 1, 0, 1, 2]]
    assert inputs["labels"].tolist() == [[IGNORED, 6, IGNORED, 8, IGNORED, 10, 11]]
    assert segments.tolist() == [[1, 1, 2, 2, 3, 3, 3]]
    assert [tuple(pick.shape) for pick in inputs["blocks"].picks] == [(1, 3), (2, 2)]
