from __future__ import annotations

import json

import pytest

from align.config.data import DataConfig
from align.config.sft import SftConfig
from align.dataset.chat import encode_conversation, set_template
from align.dataset.conversations import load_conversations
from align.errors import DataError, ModelError


def rows_of(count, text="fine", **extra):
    return [{"prompt": f"{n}?", "completion": text, **extra} for n in range(count)]


@pytest.fixture
def load(tokenizer):
    set_template(tokenizer, "deepseek_v2")

    def call(parts, *, seed=0, **sft):
        return load_conversations(
            DataConfig(parts=parts),
            tokenizer,
            SftConfig(max_length=64).model_copy(update=sft),
            seed=seed,
            file="r.yaml",
        )

    return call


def test_dataset_holds_tokens_and_mask(load, write, tokenizer):
    rows = [
        {"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"}]},
        {"prompt": "3?", "completion": "4"},
        {"instruction": "5?", "input": "6", "output": "7"},
    ]
    dataset = load({"a": {"path": write("a.jsonl", rows), "system": "Be brief."}}).epoch()
    talks = [
        [("user", "1?"), ("assistant", "2")],
        [("user", "3?"), ("assistant", "4")],
        [("user", "5?\n\n6"), ("assistant", "7")],
    ]
    expected = [
        encode_conversation(
            tokenizer, [{"role": role, "content": text} for role, text in [("system", "Be brief."), *talk]]
        )
        for talk in talks
    ]
    assert dataset.column_names == ["input_ids", "assistant_masks"]
    found = sorted((row["input_ids"], row["assistant_masks"]) for row in dataset)
    assert found == sorted(expected)
    assert all(
        row["input_ids"][-1] == tokenizer.eos_token_id and row["assistant_masks"][-1] == 1 for row in dataset
    )


def test_mixture_in_exact_proportions(load, write):
    parts = {
        "helpful": {"path": write("a.jsonl", rows_of(60, "help")), "weight": 4},
        "safety": {"path": write("b.jsonl", rows_of(40, "no")), "weight": 1},
    }
    loaded = load(parts)
    first, second = loaded.epoch(0), loaded.epoch(1)
    assert len(first) == len(second) == 100
    helpful, safety = loaded.summary
    assert (helpful.epoch, safety.epoch, helpful.repeated, safety.repeated) == (80, 20, 20, 0)
    safe = [row["input_ids"] for row in loaded.rows.select(loaded.parts["safety"])]
    assert sum(row["input_ids"] in safe for row in first) == 20
    assert first["input_ids"] != second["input_ids"]
    assert first["input_ids"] == load(parts).epoch(0)["input_ids"]
    assert first["input_ids"] != load(parts, seed=1).epoch(0)["input_ids"]
    tokens = {name: sum(loaded.lengths[place] for place in places) for name, places in loaded.parts.items()}
    expected = 80 * tokens["helpful"] / 60, 20 * tokens["safety"] / 40  # mean length × rows
    assert helpful.token_share == pytest.approx(expected[0] / sum(expected))


def test_overlong_are_dropped_or_truncated_and_counted(load, write):
    texts = ["short", "1 " * 100, "fine"]
    rows = [{"prompt": "x?", "completion": text} for text in texts]
    rows.append({"prompt": "1 " * 100, "completion": "never reached"})
    path = write("a.jsonl", rows)
    dropped = load({"a": {"path": path}})
    assert dropped.rows["id"][:] == ["a/0", "a/2"]
    assert (dropped.summary[0].dropped, dropped.summary[0].truncated) == (2, 0)
    cut = load({"a": {"path": path}}, overlong="truncate")
    assert cut.rows["id"][:] == ["a/0", "a/1", "a/2"]  # a/3 has nothing left to learn
    assert (cut.summary[0].dropped, cut.summary[0].truncated) == (1, 1)
    assert cut.lengths[1] == len(cut.rows[1]["input_ids"]) == len(cut.rows[1]["assistant_masks"]) == 64
    with pytest.raises(DataError, match="every conversation of part 'a' is longer than 8 tokens") as caught:
        load({"a": {"path": path}}, max_length=8)
    assert caught.value.key == "sft.max_length"


def test_held_out_rows_are_never_trained_on(load, write):
    parts = {
        "a": {"path": write("a.jsonl", rows_of(40)), "weight": 1},
        "b": {"path": write("b.jsonl", rows_of(10)), "weight": 3},
    }
    loaded = load(parts, eval_fraction=0.2)
    names = loaded.rows["id"]
    held = {names[place] for place in loaded.held}
    trained = {names[place] for places in loaded.parts.values() for place in places}
    assert sorted(name[0] for name in held) == ["a"] * 8 + ["b"] * 2
    assert not held & trained
    assert len(held | trained) == 50
    assert len(loaded.heldout) == 10
    assert loaded.held == load(parts, eval_fraction=0.2).held != load(parts, eval_fraction=0.2, seed=1).held
    assert load(parts).heldout is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": " "}, r"row a/1: turn 2 \(assistant\) is empty"),
        (
            {"prompt": "a", "completion": [{"role": "human", "content": "b"}]},
            "row a/1: turn 2 has the role 'human'",
        ),
        ({"prompt": "a"}, "row a/1: completion is NoneType"),
    ],
)
def test_malformed_rows_are_named(load, write, row, message):
    path = write("a.jsonl", [*rows_of(1), row])
    with pytest.raises(DataError, match=message) as caught:
        load({"a": {"path": path}})
    assert (caught.value.file, caught.value.key) == ("r.yaml", "data.parts.a")


def test_a_template_that_refuses_names_the_row(load, write, tokenizer):
    refusal = "{% if '1?' in messages[0]['content'] %}{{ raise_exception('no') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    with pytest.raises(ModelError, match="row a/1: the chat template refuses"):
        load({"a": {"path": write("a.jsonl", rows_of(2))}})


@pytest.mark.parametrize("packing", [False, True])
def test_trl_trains_exactly_the_masked_tokens(load, write, tokenizer, tmp_path, packing):
    """Through TRL's own preparation and collator: pad is eos, and every eos of an answer is a label."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    talk = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"}] * 2
    rows = [
        {"messages": talk},
        {"messages": talk[:2]},
        {"messages": [*talk[:3], {**talk[1], "content": "long " * 4}]},
    ]
    dataset = load({"a": {"path": write("a.jsonl", rows)}}).epoch()
    config = AutoConfig.from_pretrained(
        tokenizer.name_or_path, num_hidden_layers=1, hidden_size=32, n_routed_experts=2, intermediate_size=32
    )
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_config(config),
        args=SFTConfig(
            output_dir=str(tmp_path), max_length=64, per_device_train_batch_size=3, packing=packing,
            report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    expected = sorted(
        token
        for row in dataset
        for token, bit in zip(row["input_ids"], row["assistant_masks"], strict=True)
        if bit
    )
    labels = batch["labels"][batch["labels"] != -100].tolist()
    assert sorted(labels) == expected
    assert labels.count(tokenizer.eos_token_id) == 5


def test_chunks_change_nothing(load, write, monkeypatch):
    parts = {"a": {"path": write("a.jsonl", rows_of(7))}, "b": {"path": write("b.jsonl", rows_of(3))}}
    whole = load(parts)
    monkeypatch.setattr("align.dataset.conversations._CHUNK", 5)
    chunked = load(parts)
    assert chunked.rows.to_list() == whole.rows.to_list()
    assert chunked.rows["id"][:] == [*(f"a/{n}" for n in range(7)), *(f"b/{n}" for n in range(3))]
    assert chunked.parts == whole.parts == {"a": list(range(7)), "b": [7, 8, 9]}
    assert chunked.lengths == [len(ids) for ids in chunked.rows["input_ids"]]
    assert chunked.trained == [sum(mask) for mask in chunked.rows["assistant_masks"]]


def test_the_remedy_is_not_what_is_set_already(load, write):
    rows = [{"prompt": "1 " * 100, "completion": "never reached"}]
    with pytest.raises(
        DataError, match="no conversation of part 'a' has a trained token among its first 64"
    ) as caught:
        load({"a": {"path": write("a.jsonl", rows)}}, overlong="truncate")
    assert caught.value.remedy == "raise sft.max_length"
    with pytest.raises(DataError, match="longer than 64 tokens") as caught:
        load({"a": {"path": write("a.jsonl", rows)}})
    assert "sft.overlong=truncate" in caught.value.remedy


def test_what_the_recipe_maps_wins(load, write, tokenizer):
    """Over a column of the source that would be read first."""
    talk = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"}]
    path = write("a.jsonl", [{"messages": talk, "question": "3?", "answer": "4"}])
    found = load({"a": {"path": path, "columns": {"prompt": "question", "completion": "answer"}}})
    assert tokenizer.decode(found.rows[0]["input_ids"]).endswith(
        f"User: 3?\n\nAssistant: 4{tokenizer.eos_token}"
    )
    assert "User: 1?" in tokenizer.decode(load({"a": {"path": path}}).rows[0]["input_ids"])


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a\ud83d", "completion": "b"},
        {"prompt": "a", "completion": "\udc00"},
        {"instruction": "a", "input": "\ud800", "output": "b"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\ude00b"}]},
        {"conversations": [{"from": "human", "value": "\ud83da"}, {"from": "gpt", "value": "b"}]},
        {"prompt": "a", "completion": "b", "system": None, "tools": [{"name": "\ud800"}]},
    ],
)
def test_half_a_surrogate_pair_names_part_and_row(load, write, row):
    path = write("a.jsonl", [{"prompt": "a", "completion": "b"}, row])
    with pytest.raises(DataError, match=r"row a/1: .* is half of a surrogate pair") as caught:
        load({"a": {"path": path}})
    assert (caught.value.file, caught.value.key) == ("r.yaml", "data.parts.a")


def test_the_remedy_for_half_a_pair_is_one(load, write, tokenizer):
    path = write("a.jsonl", [{"prompt": "a\ud83db", "completion": "c"}])
    columns = {"prompt": r"prompt | regex_replace('[\\ud800-\\udfff]')"}
    found = load({"a": {"path": path, "columns": columns}})
    assert "User: ab\n" in tokenizer.decode(found.rows[0]["input_ids"])


def test_sharegpt_with_the_weights_of_slimorca(load, write, tokenizer):
    talk = [
        {"from": "system", "value": "Be brief.", "weight": None},
        {"from": "human", "value": "1?", "weight": 0},
        {"from": "gpt", "value": "2", "weight": 1},
    ]
    (row,) = load({"a": {"path": write("a.jsonl", [{"conversations": talk}])}}).rows
    expected = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "2"},
    ]
    assert (row["input_ids"], row["assistant_masks"]) == encode_conversation(tokenizer, expected)


def test_messages_written_as_json(load, write):
    """As a CSV has to."""
    talk = json.dumps([{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"}])
    path = write("a.jsonl", [{"messages": talk}])
    assert len(load({"a": {"path": path, "columns": {"messages": "messages | from_json"}}}).rows) == 1
