"""Columns beside a conversation that change what it means are read or refused, never passed over."""

from __future__ import annotations

import json

import pytest

from align.dataset.messages.beside import tools_column, tools_of
from align.dataset.messages.read import conversation_of, prompt_of
from align.dataset.preference.rows import read_row
from align.errors import DataError

SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
ADD = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": ADD}


def test_functions_are_tools():
    for functions in ([ADD], json.dumps([ADD]), [TOOL]):
        assert tools_of({"functions": functions}) == [TOOL]
        assert tools_column({"functions": functions}) == "functions"
    assert tools_of({"tools": [ADD], "functions": None}) == [ADD]


@pytest.mark.parametrize("other", ["def f(): pass", ["f", "g"], [{"name": "f"}], [], None, 7, "[1"])
def test_a_column_of_that_name_may_hold_something_else(other):
    assert tools_of({"functions": other}) is None
    assert tools_column({"functions": other}) is None


def test_tools_and_functions_must_agree():
    assert tools_of({"tools": [TOOL], "functions": [ADD]}) == [TOOL]
    with pytest.raises(DataError, match="tools and functions, and they differ") as caught:
        tools_of({"tools": [TOOL], "functions": [{**ADD, "name": "sub"}]})
    assert caught.value.remedy == "keep one of them: columns: {functions: none}"


@pytest.mark.parametrize(
    ("column", "value", "goal"),
    [
        ("system_prompt", "Be kind.", "system"),
        ("system_message", "Be kind.", "system"),
        ("available_tools", [ADD], "tools"),
        ("images", ["a.png"], None),
        ("image", "a.png", None),
        ("audio", {"path": "a.wav"}, None),
        ("chat_template_kwargs", {"enable_thinking": False}, None),
        ("history", [["x", "y"]], None),
    ],
)
def test_what_is_not_read_is_refused_by_name(column, value, goal):
    row = {"conversations": SHAREGPT, column: value}
    with pytest.raises(DataError, match=f"the row has {column}, which is not read") as caught:
        conversation_of(row)
    assert f"columns: {{{column}: none}}" in caught.value.remedy
    assert (f"columns: {{{goal}: {column}}}" in caught.value.remedy) == (goal is not None)
    plain = conversation_of({"conversations": SHAREGPT})
    for nothing in (None, "", [], " "):
        assert conversation_of({**row, column: nothing}) == plain
    if column != "history":  # a prompt's row may have it for the rewards
        with pytest.raises(DataError, match=f"the row has {column}"):
            prompt_of({"prompt": "a", column: value})
    pair = {"prompt": "a", "chosen": "b", "rejected": "c", column: value}
    with pytest.raises(DataError, match=f"the row has {column}"):
        read_row(pair, "bradley_terry")


def test_what_the_recipe_maps_is_read():
    row = {"conversations": SHAREGPT, "system_prompt": "Be kind.", "system": "Be kind."}
    assert conversation_of(row, mapped=["system"])[0] == {"role": "system", "content": "Be kind."}
    told = [{"from": "system", "value": "Be kind."}, *SHAREGPT]
    assert len(conversation_of({"conversations": told, "system_prompt": "Be kind."})) == 3


def test_the_parts_own_system_message_does_not_hide_the_rows():
    row = {"conversations": SHAREGPT, "system_prompt": "Be kind."}
    pair = {"prompt": "a", "chosen": "b", "rejected": "c", "system_prompt": "Be kind."}
    for refused in (
        lambda: conversation_of(row, system="Be brief."),
        lambda: prompt_of({"prompt": "a", "system_prompt": "Be kind."}, system="Be brief."),
        lambda: read_row(pair, "bradley_terry", system="Be brief."),
    ):
        with pytest.raises(DataError, match="the row has system_prompt"):
            refused()


@pytest.mark.parametrize("column", ["reasoning", "thinking"])
def test_reasoning_beside_a_conversation_is_not_dropped(column):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for row in ({"messages": talk}, {"prompt": "a", "completion": "b"}, {"instruction": "a", "output": "b"}):
        with pytest.raises(DataError, match=f"the row has {column}, which is not read") as caught:
            conversation_of({**row, column: "because"})
        assert "leave it out" in str(caught.value.remedy)
        assert conversation_of({**row, column: None}) == conversation_of(row)
    assert prompt_of({"prompt": "a", column: "because"})  # its rewards may read it


def test_context_and_reasoning_beside_texts():
    row = {"instruction": "a", "context": "c", "output": "b"}
    with pytest.raises(DataError, match="the row has context") as caught:
        conversation_of(row)
    assert "columns: {input: context}" in caught.value.remedy
    assert conversation_of({**row, "input": "c"})[0]["content"] == "a\n\nc"
    with pytest.raises(DataError, match="the row has reasoning_content"):
        conversation_of({"prompt": "a", "completion": "b", "reasoning_content": "r"})
    assert prompt_of({"prompt": "a", "context": "c", "reasoning_content": "r"})
