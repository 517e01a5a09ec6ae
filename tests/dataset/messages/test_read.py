from __future__ import annotations

import pytest

from align.dataset.messages.read import conversation_of, prompt_of
from align.dataset.rows.expression import compile_expression
from align.errors import DataError


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


TALK = turns(("user", "a"), ("assistant", "b"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": TALK}, TALK),
        ({"messages": TALK, "prompt": "other", "completion": "thing"}, TALK),
        ({"prompt": "a", "completion": "b"}, TALK),
        ({"prompt": TALK[:1], "completion": TALK[1:], "messages": None}, TALK),
        (
            {"prompt": [*turns(("system", "s")), *TALK[:1]], "completion": "b"},
            [*turns(("system", "s")), *TALK],
        ),
        ({"instruction": "a", "input": "", "output": "b"}, TALK),
        ({"instruction": "a", "input": None, "output": "b"}, TALK),
        ({"instruction": "a", "output": "b"}, TALK),
        (
            {"instruction": "Do", "input": "it", "output": "b"},
            turns(("user", "Do\n\nit"), ("assistant", "b")),
        ),
    ],
)
def test_conversations(row, expected):
    assert list(conversation_of(row)) == expected


def test_system_message_of_the_part():
    with_own = [*turns(("system", "own")), *TALK]
    assert conversation_of({"messages": TALK}, system="part")[0] == {"role": "system", "content": "part"}
    assert list(conversation_of({"messages": with_own}, system="part")) == with_own
    assert prompt_of({"prompt": "a"}, system="part") == tuple(turns(("system", "part"), ("user", "a")))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "no turns"),
        (turns(("user", "a"), ("assistant", "  \n")), r"turn 2 \(assistant\) is empty"),
        (turns(("user", ""), ("assistant", "b")), r"turn 1 \(user\) is empty"),
        (turns(("human", "a"), ("assistant", "b")), "turn 1 has the role 'human'"),
        (turns(("assistant", "a")), "turn 1 is the assistant's where the user's is expected"),
        ([*TALK, *turns(("assistant", "c"))], "turn 3 is the assistant's where the user's"),
        ([*turns(("system", "s"), ("user", "a")), *TALK], "turn 3 is the user's where the assistant's"),
        ([*TALK, *turns(("system", "s"))], "turn 3 is the system's"),
        (TALK[:1], "ends with a turn of 'user'"),
        (turns(("system", "s")), "nothing but a system message"),
        ([{"role": "user"}], "turn 1 has no content"),
        (["a"], "turn 1 is not a message"),
        ([{"role": "user", "content": 7}], "turn 1: its content is 7, not text"),
        ([{"role": "user", "content": []}], "turn 1: its content is \\[\\], not text"),
        (7, "messages is int"),
    ],
)
def test_malformed(messages, message):
    with pytest.raises(DataError, match=message) as caught:
        conversation_of({"messages": messages})
    assert caught.value.remedy


def test_no_conversation_names_the_columns():
    with pytest.raises(DataError, match="no conversation in the columns question, response"):
        conversation_of({"question": "a", "response": "b"})
    with pytest.raises(DataError, match="completion is NoneType"):
        conversation_of({"prompt": "a", "completion": None})


def test_prompts():
    assert prompt_of({"prompt": "a", "answer": "b"}) == tuple(TALK[:1])
    assert prompt_of({"prompt": [*TALK, *turns(("user", "c"))]}) == (*TALK, {"role": "user", "content": "c"})
    with pytest.raises(DataError, match="prompt ends with a turn of 'assistant'") as caught:
        prompt_of({"prompt": TALK})
    assert "columns: {prompt: 'prompt[:-1]'}" in caught.value.remedy
    with pytest.raises(DataError) as caught:
        prompt_of({"prompt": TALK, "talk": TALK}, mapped={"prompt": "talk"})
    assert "columns: {prompt: 'talk[:-1]'}" in caught.value.remedy
    with pytest.raises(DataError, match="no prompt in the columns question") as caught:
        prompt_of({"question": "a"})
    assert "columns: {prompt: question}" in caught.value.remedy
    with pytest.raises(DataError, match=r"turn 1 \(user\) is empty"):
        prompt_of({"prompt": " "})


SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": " "}]


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (
            {"messages": turns(("user", "a"), ("assistant", " "))},
            "'' not in messages | map(attribute='content') | map('trim')",
        ),
        ({"conversations": SHAREGPT}, "'' not in conversations | map(attribute='value') | map('trim')"),
        ({"prompt": "a", "completion": " "}, "prompt | trim and completion | trim"),
        (
            {"prompt": TALK[:1], "completion": " "},
            "'' not in prompt | map(attribute='content') | map('trim') and completion | trim",
        ),
        ({"instruction": "a", "output": ""}, "instruction | trim and output | trim"),
    ],
)
def test_a_remedy_names_columns_that_the_row_has(row, where):
    with pytest.raises(DataError, match="is empty") as caught:
        conversation_of(row)
    assert caught.value.remedy == f'drop such rows with where: "{where}"'
    keep = compile_expression(where)
    assert not keep(row)
    assert keep({name: TALK if isinstance(value, list) else "b" for name, value in row.items()} | _named(row))


def _named(row):
    full = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    return {"conversations": full} if "conversations" in row else {}


@pytest.mark.parametrize(
    ("row", "remedy"),
    [
        ({"prompt": "a\ud83d", "completion": "b"}, 'columns: {prompt: "prompt | regex_replace('),
        ({"prompt": "a", "completion": "\ud83d"}, 'columns: {completion: "completion | regex_replace('),
        ({"instruction": "a", "output": "\ud83d"}, 'columns: {output: "output | regex_replace('),
        ({"instruction": "a", "input": "\ud83d", "output": "b"}, 'columns: {input: "input | regex_replace('),
        ({"messages": turns(("user", "\ud83d"), ("assistant", "b"))}, "mend the source: an escape"),
    ],
)
def test_half_a_pair_is_taken_out_of_the_column_that_has_it(row, remedy):
    with pytest.raises(DataError, match="half of a surrogate pair") as caught:
        conversation_of(row)
    assert remedy in caught.value.remedy
    assert ("prompt" in caught.value.remedy) == ("prompt:" in remedy)
