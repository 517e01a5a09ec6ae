"""One turn, in the forms in which data sets give it; what is not known is refused by name."""

from __future__ import annotations

import json

import pytest

from align.dataset.messages.beside import tools_of
from align.dataset.messages.read import check_trained, conversation_of, prompt_of
from align.dataset.messages.turns import check_text, is_empty, plain, turns_of
from align.errors import DataError

USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def one(turn):
    (found,) = turns_of([turn], "messages", "user")
    return found


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"from": "human", "value": "a"}, USER),
        ({"from": "gpt", "value": "b"}, ANSWER),
        ({"from": "system", "value": "s", "weight": None}, {"role": "system", "content": "s"}),
        ({"from": "observation", "value": "4"}, {"role": "tool", "content": "4"}),
        (
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ),
        ({"role": "user", "content": [{"type": "text", "text": "a"}]}, USER),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "image_url": None}, "b"]},
            {**USER, "content": "ab"},
        ),
        ({**USER, "tool_calls": None, "name": None, "reasoning_content": ""}, USER),  # as Arrow fills up
        ({**ANSWER, "reasoning_content": "r"}, {**ANSWER, "reasoning_content": "r"}),
        ({**ANSWER, "thinking": "r"}, {**ANSWER, "reasoning_content": "r"}),
        ({**ANSWER, "reasoning": "r", "reasoning_content": "r"}, {**ANSWER, "reasoning_content": "r"}),
        ({**ANSWER, "weight": 0}, {**ANSWER, "weight": 0}),
        ({**ANSWER, "loss": False}, {**ANSWER, "weight": 0}),
        ({**ANSWER, "train": False, "weight": 0.0}, {**ANSWER, "weight": 0}),
        ({**ANSWER, "weight": 1, "train": True}, ANSWER),
        ({**USER, "weight": 0}, USER),
        ({**USER, "name": "Ann"}, {**USER, "name": "Ann"}),
        (
            {"role": "tool", "content": "", "tool_call_id": "1", "name": "f"},
            {"role": "tool", "content": "", "tool_call_id": "1", "name": "f"},
        ),
        (
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ),
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
                ],
            },
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", **CALL}]},
        ),
        (
            {
                "role": "assistant",
                "content": "",
                "tool_calls": json.dumps([{"name": "f", "arguments": {"x": 1}}]),
            },
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ),
        (
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ),
    ],
)
def test_forms(turn, expected):
    assert one(turn) == expected


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({**USER, "mood": "good", "id": 3}, r"messages: turn 1 has 'mood', 'id', which is not known"),
        ({"from": "narrator", "value": "a"}, "turn 1 is from 'narrator'"),
        ({"from": "human"}, "turn 1 has no content"),
        ({**USER, "from": "gpt"}, "turn 1 has role and from"),
        ({**USER, "value": "b"}, "turn 1 has content and value"),
        ({"value": "a"}, "turn 1 is not a message"),
        (
            {**USER, "content": [{"type": "image_url", "image_url": {}}]},
            "part 1 of its content is of type 'image_url'",
        ),
        (
            {**USER, "content": [{"type": "text", "text": "a", "cache": 1}]},
            "part 1 of its content has 'cache'",
        ),
        ({**USER, "content": [7]}, "part 1 of its content is of type 'int'"),
        ({**ANSWER, "weight": 0.5}, "weight is 0.5"),
        ({**ANSWER, "weight": 2}, "weight is 2"),
        ({**ANSWER, "weight": -1}, "weight is -1"),
        ({**ANSWER, "loss": "false"}, "loss is 'false'"),
        ({**ANSWER, "train": [True]}, r"train is \[True\]"),
        ({**ANSWER, "train": True, "weight": 0}, "contradict each other"),
        ({**USER, "train": True}, "train asks to train the user's turn"),
        ({"from": "system", "value": "s", "weight": 1}, "weight asks to train the system's turn"),
        ({**ANSWER, "reasoning": "r", "thinking": "other"}, "reasoning is not one text"),
        ({**ANSWER, "reasoning_content": ["r"]}, "reasoning is not one text"),
        ({**USER, "reasoning_content": "r"}, "has reasoning_content, but is the user's"),
        ({**USER, "tool_calls": [CALL]}, "has tool_calls, but is the user's"),
        ({**ANSWER, "tool_calls": "f(1)"}, "tool_calls is no JSON"),
        ({**ANSWER, "tool_calls": {"f": 1}}, "no list of calls"),
        ({**ANSWER, "tool_calls": [{"function": {"arguments": {}}}]}, "no list of calls"),
        ({**ANSWER, "tool_calls": [{"name": "f", "arguments": "{x"}]}, "arguments is no JSON"),
        ({**ANSWER, "tool_calls": [{"name": "f", "arguments": "[1]"}]}, "no list of calls"),
        ({**USER, "content": "a\ud83d"}, r"turn 1: character 2 is half of a surrogate pair \(U\+D83D\)"),
        ({**ANSWER, "tool_calls": [{"name": "f", "arguments": {"x": "\udc00"}}]}, "half of a surrogate pair"),
    ],
)
def test_what_is_not_known_is_refused(turn, message):
    with pytest.raises(DataError, match=message) as caught:
        one(turn)
    assert caught.value.remedy


def test_a_text_with_half_a_pair():
    with pytest.raises(DataError, match=r"prompt: character 3 .*U\+DFFF") as caught:
        turns_of("12\udfff", "prompt", "user")
    assert "regex_replace" in caught.value.remedy
    check_text(["\U0001f642", {"你": "好\ufffd"}, 3, None], "x")
    with pytest.raises(DataError, match="x: character 1"):
        check_text([{"\ud800": 1}], "x")


def test_who_may_follow_whom():
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    result = {"role": "tool", "content": "4"}
    talk = [USER, call, result, result, ANSWER, USER, ANSWER]
    assert list(conversation_of({"messages": talk})) == talk
    assert prompt_of({"prompt": talk[:4]})[-1] == result
    developer = {"role": "developer", "content": "s"}
    assert conversation_of({"messages": [developer, USER, ANSWER]}, system="other")[0] == developer
    for wrong in (
        [result, ANSWER],
        [USER, result, ANSWER],
        [USER, call, USER, ANSWER, ANSWER],
        [developer, *talk[2:]],
    ):
        with pytest.raises(DataError, match="is expected"):
            conversation_of({"messages": wrong})
    with pytest.raises(DataError, match=r"turn 2 \(assistant\) is empty"):
        conversation_of({"messages": [USER, {**ANSWER, "content": ""}]})
    with pytest.raises(DataError, match="ends with a turn of 'tool'"):
        conversation_of({"messages": talk[:3]})


def test_weights_are_for_training_only():
    silent = {**ANSWER, "weight": 0}
    assert conversation_of({"messages": [USER, silent, USER, ANSWER]})[1] == silent
    assert prompt_of({"prompt": [USER, silent, USER]}) == (USER, ANSWER, USER)
    check_trained([USER, silent, USER, ANSWER])
    with pytest.raises(DataError, match="no turn of the conversation is to be trained"):
        check_trained([USER, silent])


TALK = [USER, ANSWER]
OTHER = [{"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}]


@pytest.mark.parametrize(
    ("row", "mapped", "first"),
    [
        ({"conversations": OTHER}, (), "c"),
        ({"messages": TALK, "conversations": OTHER}, (), "a"),
        ({"messages": TALK, "conversations": OTHER}, ("conversations",), "c"),
        ({"messages": TALK, "prompt": "p", "completion": "q"}, (), "a"),
        ({"messages": TALK, "prompt": "p", "completion": "q"}, ("prompt", "completion"), "p"),
        ({"messages": TALK, "prompt": "p", "completion": "q"}, ("prompt",), "p"),
        ({"messages": TALK, "prompt": "p", "completion": "q"}, ("completion", "answer"), "p"),
        ({"messages": TALK, "instruction": "i", "output": "o"}, ("output",), "i"),
        ({"prompt": "p", "completion": "q", "instruction": "i", "output": "o"}, ("instruction",), "i"),
        ({"messages": TALK, "prompt": "p", "completion": "q"}, ("messages", "prompt"), "a"),
        ({"messages": None, "conversations": OTHER}, (), "c"),
    ],
)
def test_what_the_recipe_maps_wins(row, mapped, first):
    assert conversation_of(row, mapped=mapped)[0]["content"] == first


def test_half_a_map_is_an_error():
    with pytest.raises(DataError, match="columns maps prompt, and there is no completion") as caught:
        conversation_of({"messages": TALK, "prompt": "p"}, mapped=("prompt",))
    assert "map completion too" in caught.value.remedy
    with pytest.raises(DataError, match="messages is NoneType"):
        conversation_of({"messages": None, "prompt": "p", "completion": "q"}, mapped=("messages",))


def test_tools():
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert tools_of({"tools": tools}) == tools_of({"tools": json.dumps(tools)}) == tools
    for nothing in ({}, {"tools": None}, {"tools": []}, {"tools": "[]"}, {"tools": " "}):
        assert tools_of(nothing) is None
    for wrong in ("f(x)", ["f"], 7):
        with pytest.raises(DataError, match="tools is no"):
            tools_of({"tools": wrong})


def test_comparison_and_emptiness():
    assert plain(ANSWER) == plain({**ANSWER, "content": " b\n", "weight": 0}) == ("assistant", "b")
    assert plain({**ANSWER, "tool_calls": [CALL]}) != plain(ANSWER)
    assert is_empty({**ANSWER, "content": " "})
    assert not is_empty({**ANSWER, "content": "", "tool_calls": [CALL]})
    assert not is_empty({"role": "tool", "content": ""})


def test_a_text_is_no_list_of_messages():
    for column in ("messages", "conversations"):
        with pytest.raises(DataError, match=f"{column} is text, not a list of messages") as caught:
            conversation_of({column: json.dumps(TALK)})
        assert f"{column} | from_json" in caught.value.remedy


def test_system_and_history_of_the_row():
    row = {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]}
    expected = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    assert [(turn["role"], turn["content"]) for turn in conversation_of(row, system="part")] == expected
    for nothing in (None, "", " "):
        bare = {"messages": TALK, "system": nothing, "history": []}
        assert conversation_of(bare, system="part")[0]["content"] == "part"
        assert list(conversation_of(bare)) == TALK
    for wrong in (3, ["Be brief."], {"content": "s"}):
        with pytest.raises(DataError, match=f"system is {type(wrong).__name__}, not text"):
            conversation_of({**row, "system": wrong})
        with pytest.raises(DataError, match="not text"):
            prompt_of({"prompt": "a", "system": wrong})
    assert prompt_of({"prompt": "a", "system": "s"})[0] == {"role": "system", "content": "s"}
    with pytest.raises(DataError, match="history is no list of pairs"):
        conversation_of({**row, "history": ["ab"]})
    with pytest.raises(DataError, match="system: character 1 is half"):
        conversation_of({**row, "system": "\ud800"})


def test_a_remedy_keeps_the_keys_of_the_turn():
    for turn, kept in (
        ({"from": "gpt", "value": "b", "id": 7}, "conversations | keep('from', 'value')"),
        ({"role": "assistant", "content": "b", "id": 7}, "conversations | keep('role', 'content')"),
        ({"from": "gpt", "value": "b", "weight": 7}, "conversations | keep('from', 'value')"),
    ):
        with pytest.raises(DataError) as caught:
            turns_of([turn], "conversations", "assistant")
        assert kept in caught.value.remedy
