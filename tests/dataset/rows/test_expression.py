from __future__ import annotations

import pytest

from align.dataset.rows.expression import compile_expression, number, transcript
from align.errors import DataError, RecipeError

ROW = {
    "question": "How many?",
    "answer": "3 + 4 = <<3+4=7>>7\n#### 1,007",
    "my column": 5,
    "range": [1, 2],
    "none": None,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("question", "How many?"),
        ("my column", 5),  # not an expression, but a column
        ("range", [1, 2]),
        ("none", None),
        ("answer.split('####')[-1].strip()", "1,007"),
        ("answer.split('####')[-1] | number", 1007),
        ("answer | regex_replace('<<[^>]*>>', '')", "3 + 4 = 7\n#### 1,007"),
        ("answer | regex_replace('(\\d) \\+', '\\\\1 plus')", "3 plus 4 = <<3+4=7>>7\n#### 1,007"),
        ("question ~ ' ' ~ answer[:1]", "How many? 3"),
        ("nothing is defined", False),
        ("question is defined and range | length > 1", True),
        ("'\\n\\nHuman: a\\n\\nAssistant: b' | transcript", [
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
        ("[{'a': 1, 'b': 2}, {'b': 3, 'c': 4}] | keep('b', 'c')", [{"b": 2}, {"b": 3, "c": 4}]),
        ("'[{\"a\": null}]' | from_json", [{"a": None}]),
        ("[{'role': 'user', 'content': question}]", [{"role": "user", "content": "How many?"}]),
    ],
)  # fmt: skip
def test_values(text, value):
    assert compile_expression(text)(ROW) == value


def test_a_column_called_result():
    assert compile_expression("result + 1")({"result": 1}) == 2


@pytest.mark.parametrize("text", ["nothing", "nothing + 1", "question.nothing", "nothing | upper"])
def test_undefined_names_the_columns(text):
    with pytest.raises(DataError, match="nothing") as caught:
        compile_expression(text, file="r.yaml", key="data.parts.a.where")(ROW)
    assert (caught.value.file, caught.value.key) == ("r.yaml", "data.parts.a.where")
    assert caught.value.remedy == "columns: question, answer, my column, range, none"


@pytest.mark.parametrize(
    "text",
    [
        "answer | number",
        "none.strip()",
        "answer | from_json",
        "question | keep('a')",
        "question | int / 0",
        "1 / (range | first - 1)",
    ],
)
def test_failures_are_data_errors(text):
    with pytest.raises(DataError, match="fails"):
        compile_expression(text)(ROW)


@pytest.mark.parametrize("text", ["my collumn", "question |", "a b c", "question | nofilter"])
def test_neither_column_nor_expression(text):
    with pytest.raises(RecipeError, match="neither a column nor an expression"):
        compile_expression(text)(ROW)


@pytest.mark.parametrize(
    "text",
    ["question.__class__", "question.__class__.__mro__", "''.__class__.__base__.__subclasses__()"],
)
def test_the_sandbox_holds(text):
    with pytest.raises((DataError, RecipeError)):
        compile_expression(text)(ROW)


def test_no_globals():
    """Jinja's own helpers are no way out, and no surprise for a misspelt column."""
    for name in ("lipsum", "cycler", "namespace", "dict"):
        with pytest.raises(DataError):
            compile_expression(name)(ROW)


def test_transcript():
    text = "\n\nHuman: Hi.\nThere \n\nAssistant: Hello.\n\nStill me.\n\nHuman: Bye\n\nAssistant:"
    assert transcript(text) == [
        {"role": "user", "content": "Hi.\nThere"},
        {"role": "assistant", "content": "Hello.\n\nStill me."},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": ""},
    ]
    assert transcript("Human: a\n\nAssistant: b\n\nAssistant: c")[1]["content"] == "b\n\nc"
    for bad in ("", "hello", "System: x\n\nHuman: a"):
        with pytest.raises(ValueError, match="not a transcript"):
            transcript(bad)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("$1,234.50", 1234.5),
        ("-3", -3),
        ("7.0", 7),
        (" 5 apples", 5),
        (6, 6),
        (2.5, 2.5),
        (".5", 0.5),
    ],
)
def test_number(text, value):
    assert number(text) == value
    assert type(number(text)) is type(value)


@pytest.mark.parametrize("text", ["", "none", "3 of 4", None])
def test_no_single_number(text):
    with pytest.raises(ValueError, match="expected one number"):
        number(text)
