from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.config.data import PreferenceDataConfig
from align.config.reward_model import RewardModelConfig
from align.dataset.chat import set_template
from align.dataset.preference.load import Preferences, load_preferences, remarks
from align.dataset.preference.rows import (
    Pair,
    Point,
    group_of,
    is_held_out,
    noise_of,
    pair_of,
    point_of,
    read_row,
)
from align.dataset.preference.tokens import cut, encode, shared_prefix
from align.errors import DataError

Write = Callable[[str, list[dict[str, Any]]], str]
USER, ANSWER = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}
OTHER = {"role": "assistant", "content": "Go away."}
BYE = {"role": "user", "content": "Bye."}


def pairs(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"What is {n} + 1?", "chosen": f"It is {n + 1}.", "rejected": "No idea.", **columns}
        for n in range(count)
    ]


@pytest.fixture
def ready(tokenizer: Any) -> Any:
    set_template(tokenizer)
    return tokenizer


def load(path: str, tokenizer: Any, *, seed: int = 0, **rm: Any) -> Preferences:
    config = RewardModelConfig(**{"max_length": 256, "eval_fraction": 0.3, **rm})
    return load_preferences(PreferenceDataConfig(path=path), tokenizer, config, seed=seed, file="recipe.yaml")


# rows


def test_an_answer_goes_behind_the_prompt():
    pair = pair_of({"prompt": "Hi?", "chosen": "Hello.", "rejected": [OTHER], "margin": 2})
    assert pair == Pair((USER, ANSWER), (USER, OTHER), 2.0)


def test_whole_conversations_need_no_prompt():
    row = {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}
    assert pair_of(row) == pair_of({**row, "prompt": "Hi?"}) == Pair((USER, ANSWER), (USER, OTHER), 0.0)


SYSTEM = {"role": "system", "content": "Be kind."}
LONG = [USER, ANSWER, BYE, OTHER]


@pytest.mark.parametrize(
    ("prompt", "chosen"),
    [
        ("Hi?", LONG),  # the first question
        (" Bye.", LONG),  # the last
        ("\n\nHuman: Hi?\n\nAssistant: Hello.\n\nHuman: Bye.", LONG),
        ([USER], LONG),
        ([USER, ANSWER, BYE], LONG),
        ([SYSTEM, USER], LONG),
        ([USER], [SYSTEM, *LONG]),
        ([SYSTEM, USER], [SYSTEM, *LONG]),
    ],
)
def test_a_prompt_beside_whole_conversations_repeats_them(prompt: Any, chosen: list[dict[str, Any]]):
    row = {"prompt": prompt, "chosen": chosen, "rejected": [*chosen[:-1], ANSWER]}
    assert pair_of(row).chosen == tuple(chosen)


@pytest.mark.parametrize(
    "prompt",
    ["Ho?", [BYE], [USER, OTHER], [USER, ANSWER, BYE, OTHER, USER], [{**SYSTEM, "content": "x"}, USER]],
)
def test_a_prompt_that_contradicts_them_is_an_error(ready: Any, write: Write, prompt: Any):
    whole = {"chosen": [SYSTEM, *LONG], "rejected": [SYSTEM, USER, ANSWER, BYE, ANSWER]}
    path = write("a.jsonl", [whole, {**whole, "prompt": prompt}])
    with pytest.raises(DataError, match=r"row train/1: prompt is another than that of chosen") as caught:
        load(path, ready)
    assert caught.value.remedy is not None
    assert "columns: {prompt: none}" in caught.value.remedy
    assert pair_of({**whole, "prompt": None}, mapped=["prompt"]).chosen == (SYSTEM, *LONG)


@pytest.mark.parametrize("value", [1e308, -1e38, "1e400", 10**400, 1.1e9])
def test_numbers_that_training_cannot_compute_with(ready: Any, write: Write, value: Any):
    rows = [*pairs(20, margin=0.5), *pairs(1, margin=value)]
    with pytest.raises(DataError, match="row train/20: margin is "):
        load(write("a.jsonl", rows), ready)
    scored = {"messages": [USER, ANSWER], "score": value}
    with pytest.raises(DataError, match="score is "):
        point_of(scored, binary=False)


def test_margins_of_use():
    row = {"prompt": "Hi?", "chosen": "Hello.", "rejected": "Bye."}
    margins = [pair_of({**row, "margin": value}).margin for value in (None, "", 0, "2", -1, True, 1e9)]
    assert margins == [0, 0, 0, 2, -1, 1, 1e9]
    with pytest.raises(DataError, match=r"margin is \[\], not a number"):
        pair_of({**row, "margin": []})


def test_a_part_may_have_a_system_message():
    pair = pair_of({"prompt": "Hi?", "chosen": "Hello.", "rejected": "Bye."}, system="Be kind.")
    assert pair.chosen[0] == pair.rejected[0] == {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Hi?", "chosen": "Hello."}, "no rejected"),
        ({"chosen": "Hello.", "rejected": "Bye."}, "no prompt"),
        ({"prompt": "Hi?", "chosen": "a", "rejected": "b", "margin": "wide"}, "margin is 'wide'"),
        ({"prompt": "Hi?", "chosen": "a", "rejected": "b", "margin": float("inf")}, "margin is inf"),
        ({"chosen": [USER, ANSWER, USER], "rejected": [USER, ANSWER, BYE]}, "ends with a turn of 'user'"),
        ({"chosen": [USER, USER, ANSWER], "rejected": [USER, USER, OTHER]}, "where the assistant's is"),
    ],
)
def test_a_malformed_pair_is_an_error(row: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        read_row(row, "bradley_terry")


def test_noise_is_named():
    assert noise_of(Pair((USER, ANSWER), (USER, OTHER), 0)) is None
    assert noise_of(Pair((USER, ANSWER), (USER, {**ANSWER, "content": " Hello. "}), 0)) == "identical"
    assert noise_of(Pair((USER, ANSWER), ({**USER, "content": "Ho?"}, OTHER), 0)) == "differing"
    assert noise_of(Pair((USER, ANSWER), (USER, {**OTHER, "content": " \n"}), 0)) == "empty"
    assert noise_of(Pair(({**USER, "content": ""}, ANSWER), ({**USER, "content": ""}, OTHER), 0)) == "empty"


def test_a_scored_conversation():
    assert point_of({"messages": [USER, ANSWER], "score": True}, binary=True) == Point((USER, ANSWER), 1.0)
    row = {"prompt": "Hi?", "completion": "Hello.", "score": 2.5}
    assert point_of(row, binary=False) == Point((USER, ANSWER), 2.5)
    with pytest.raises(DataError, match="neither 0 nor 1"):
        point_of(row, binary=True)
    with pytest.raises(DataError, match="no score"):
        point_of({"messages": [USER, ANSWER]}, binary=False)
    assert read_row({**row, "completion": " "}, "regression") == "empty"
    assert read_row({"messages": [USER, {**ANSWER, "content": ""}], "score": 1}, "binary") == "empty"


def test_dialogues_that_begin_alike_are_one_group():
    longer = [USER, ANSWER, {"role": "user", "content": "More?"}, OTHER]
    system = {"role": "system", "content": "Be kind."}
    assert group_of([USER, OTHER]) == group_of(longer) == group_of([system, USER, ANSWER])
    assert group_of([{**USER, "content": "Ho?"}, ANSWER]) != group_of(longer)


def test_the_held_out_share_is_about_what_was_asked():
    held = [is_held_out(group_of([{"role": "user", "content": str(n)}]), 0.2) for n in range(2000)]
    assert 0.17 < sum(held) / len(held) < 0.23


# tokens


def test_shared_prefix():
    assert shared_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert shared_prefix([1, 2], [1, 2, 4]) == 2
    assert shared_prefix([], [1]) == 0


def test_cutting_keeps_the_end_the_first_token_and_the_same_context():
    chosen, rejected = [0, *range(10, 30)], [0, *range(10, 20), 99]
    one, other = cut([chosen, rejected], 12, bos=0)
    assert one == [0, *range(19, 30)]
    assert other == [0, 19, 99]
    assert cut([chosen], 5, bos=None) == [[25, 26, 27, 28, 29]]
    assert cut([[1, 2, 3], [1, 2]], 5, bos=1) == [[1, 2, 3], [1, 2]]


def test_cutting_never_empties_the_shorter_side():
    one, other = cut([[1, 2, *range(50, 90)], [1, 3]], 8, bos=1)
    assert one == [1, *range(83, 90)]
    assert other == [1, 3]


# the whole


def test_rows_are_cleaned_split_and_tokenised(ready: Any, write: Write):
    rows = pairs(40)
    rows += [
        {"prompt": "a?", "chosen": "b", "rejected": " b "},
        {"prompt": "a?", "chosen": "b", "rejected": ""},
        {"chosen": [USER, ANSWER], "rejected": [{**USER, "content": "x"}, OTHER]},
    ]
    loaded = load(write("rows.jsonl", rows), ready)
    (line,) = loaded.summary
    assert line.noise == {"identical": 1, "differing": 1, "empty": 1, "unscored": 0, "tied": 0}
    assert (line.found, line.train + line.held_out, line.truncated) == (43, 40, 0)
    assert list(remarks(loaded.summary, 256)) == [
        "part train: left out of 43 rows: 1 identical, 1 differing, 1 empty"
    ]
    held, trained = loaded.heldout, loaded.epoch(0)
    assert len(held) == line.held_out > 4
    assert not set(held["id"]) & set(trained["id"])
    row = trained[0]
    number = int(row["id"].partition("/")[2])
    text = ready.decode(row["chosen_ids"])
    assert text.endswith(f"It is {number + 1}.{ready.eos_token}")
    assert row["chosen_ids"][0] == ready.bos_token_id
    expected = len(ready(held[0]["id"] and "No idea.", add_special_tokens=False)["input_ids"])
    assert held[0]["rejected_length"] == expected
    lengths = [len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in held]
    assert lengths == sorted(lengths, reverse=True)


def test_pairs_of_a_prompt_stay_together_in_every_run(ready: Any, write: Write):
    rows = [row for row in pairs(60) for _ in range(3)]
    for number, row in enumerate(rows):
        rows[number] = {**row, "rejected": f"Number {number}."}
    path = write("rows.jsonl", rows)
    sides = []
    for seed in (0, 1):
        loaded = load(path, ready, seed=seed)
        held, trained = set(loaded.heldout["group"]), set(loaded.epoch(0)["group"])
        assert not held & trained
        assert len(held | trained) == 60
        sides.append(held)
    assert sides[0] == sides[1]
    orders = [load(path, ready, seed=seed).epoch(0)["id"] for seed in (0, 0, 1)]
    assert list(orders[0]) == list(orders[1]) != list(orders[2])


def test_long_dialogues_lose_their_beginning_and_are_counted(ready: Any, write: Write):
    rows = [{**row, "prompt": f"{row['prompt']} " + "Count on. " * 60} for row in pairs(30)]
    loaded = load(write("rows.jsonl", rows), ready, max_length=64)
    assert loaded.summary[0].truncated == 30
    row = loaded.epoch(0)[0]
    assert max(len(row["chosen_ids"]), len(row["rejected_ids"])) == 64
    assert row["chosen_ids"][0] == row["rejected_ids"][0] == ready.bos_token_id
    shared = shared_prefix(row["chosen_ids"], row["rejected_ids"])
    assert shared > 40
    assert "lost their beginning" in " ".join(remarks(loaded.summary, 64))


def test_scored_conversations(ready: Any, write: Write):
    rows = [{"prompt": f"{n}?", "completion": f"Answer {n}.", "score": n % 2} for n in range(40)]
    loaded = load(write("rows.jsonl", rows), ready, loss="binary")
    row = loaded.heldout[0]
    number = int(row["id"].partition("/")[2])
    assert row["score"] == number % 2
    assert row["length"] == len(ready(f"Answer {number}.", add_special_tokens=False)["input_ids"])
    answer = {"role": "assistant", "content": f"Answer {number}."}
    messages = ({"role": "user", "content": f"{number}?"}, answer)
    assert row["input_ids"] == encode(ready, messages)


def test_nothing_on_one_side_is_an_error(ready: Any, write: Write):
    path = write("rows.jsonl", [{**row, "prompt": "Same?"} for row in pairs(5)])
    with pytest.raises(DataError, match="side of the split") as caught:
        load(path, ready)
    assert caught.value.key == "rm.eval_fraction"


def test_nothing_but_noise_is_an_error(ready: Any, write: Write):
    with pytest.raises(DataError, match="nothing is left of part 'train'"):
        load(write("rows.jsonl", pairs(3, rejected="")), ready)


def test_a_malformed_row_is_named(ready: Any, write: Write):
    path = write("rows.jsonl", [*pairs(3), {"prompt": "a?", "chosen": "b"}])
    with pytest.raises(DataError, match=r"row train/3: no rejected") as caught:
        load(path, ready)
    assert caught.value.key == "data.parts.train"


def test_weights_share_an_epoch(ready: Any, write: Write):
    others = [{**row, "prompt": f"So: {row['prompt']}"} for row in pairs(60)]
    parts = {
        "a": {"path": write("a.jsonl", pairs(60)), "weight": 3},
        "b": {
            "path": write("b.jsonl", others),
            "weight": 1,
        },
    }
    config = RewardModelConfig(eval_fraction=0.2)
    loaded = load_preferences(PreferenceDataConfig.model_validate({"parts": parts}), ready, config, seed=0)
    epoch = list(loaded.epoch(0)["part"])
    assert abs(epoch.count("a") - 0.75 * len(epoch)) <= 1


def test_noise_of_hh_rlhf(ready: Any, write: Write, shared_data: Path):
    """Transcripts of real dialogues; what is left out is what the files are known to hold."""
    counts = {}
    for name in ("helpful-base", "harmless-base"):
        part = {"columns": {"chosen": "chosen | transcript", "rejected": "rejected | transcript"}}
        source = shared_data / "hh_rlhf" / f"{name}.jsonl.gz"
        with gzip.open(source, "rt", encoding="utf-8") as stream:
            lines = stream.read().splitlines()
        noisy = [line for line in lines if _suspicious(json.loads(line))]
        path = write(f"{name}.jsonl", [json.loads(line) for line in [*noisy, *lines[:150]]])
        data = PreferenceDataConfig.model_validate({"path": path, "parts": {name: part}})
        (line,) = load_preferences(data, ready, RewardModelConfig(max_length=1024), seed=0).summary
        counts[name] = dict(line.noise)
    assert counts["helpful-base"]["identical"] == 2
    assert counts["helpful-base"]["empty"] >= 4
    assert counts["harmless-base"]["empty"] >= 4


def _suspicious(row: dict[str, str]) -> bool:
    ends = any(row[side].rstrip().endswith("Assistant:") for side in ("chosen", "rejected"))
    return row["chosen"] == row["rejected"] or ends


# other people's rows


def test_sharegpt_sides_and_keys_that_say_nothing_here():
    sides = {
        "chosen": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello.", "weight": 0}],
        "rejected": [USER, {**OTHER, "tool_calls": None}],
    }
    assert read_row(sides, "bradley_terry") == Pair((USER, ANSWER), (USER, OTHER), 0.0)
    scored = {"conversations": sides["chosen"], "score": 1}
    assert read_row(scored, "binary") == Point((USER, ANSWER), 1.0)


def test_sides_may_differ_in_a_call_alone():
    def side(x: int) -> list[dict[str, Any]]:
        return [
            USER,
            {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"x": x}}]},
        ]

    assert isinstance(read_row({"chosen": side(1), "rejected": side(2)}, "bradley_terry"), Pair)
    assert read_row({"chosen": side(1), "rejected": side(1)}, "bradley_terry") == "identical"


def test_a_mapped_prompt_is_not_passed_over():
    row = {"prompt": "Hi?", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}
    with pytest.raises(DataError, match="columns maps prompt, and chosen is a whole conversation"):
        read_row(row, "bradley_terry", mapped=["prompt"])
    score = {"messages": [BYE, OTHER], "prompt": "Hi?", "completion": "Hello.", "score": 1}
    assert read_row(score, "binary", mapped=["prompt", "completion"]) == Point((USER, ANSWER), 1.0)


def test_reward_models_read_no_tools(ready: Any, write: Write):
    rows = pairs(20, tools=[{"name": "f"}])
    with pytest.raises(DataError, match="row train/0: the row has tools") as caught:
        load(write("a.jsonl", rows), ready)
    assert "tools: none" in caught.value.remedy


def test_the_rows_own_system_message():
    row = {"prompt": "Hi?", "chosen": "Hello.", "rejected": "Go away.", "system": "Be kind."}
    pair = read_row(row, "bradley_terry", system="Be brief.")
    assert isinstance(pair, Pair)
    assert pair.chosen[0] == pair.rejected[0] == {"role": "system", "content": "Be kind."}


def test_what_the_template_leaves_out_is_refused_here_too(ready: Any, write: Write):
    thinking = {"role": "assistant", "content": "Hello.", "reasoning_content": "A greeting."}
    with pytest.raises(DataError, match="row train/0: turn 2 has reasoning_content"):
        load(write("a.jsonl", [{"chosen": [USER, thinking], "rejected": [USER, OTHER]}]), ready)


def test_half_a_surrogate_pair_names_the_row(ready: Any, write: Write):
    rows = [*pairs(1), *pairs(1, rejected="\ud83d")]
    with pytest.raises(DataError, match=r"row train/1: rejected: character 1 is half of a surrogate pair"):
        load(write("a.jsonl", rows), ready)
