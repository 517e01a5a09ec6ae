from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from align.config.yaml12 import dump, inline, parse, reason, remedy


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("5e-6", 5e-6),
        ("1E5", 1e5),
        ("-2.5", -2.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", "010"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("'5e-6'", "5e-6"),
        ("0x1f", 31),
        ("-7", -7),
        ("~", None),
        ("", None),
        ("null", None),
        ("answer.split('#')[-1]", "answer.split('#')[-1]"),
        ("{a: off, b: [1, 2e3]}", {"a": "off", "b": [1, 2000.0]}),
    ],
)
def test_scalars_are_what_people_mean(text: str, value: object) -> None:
    found = parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "x:\n  b: 1\n  c: 2\n  b: 1", "{a: 1, a: 1}"])
def test_a_repeated_key_is_an_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="appears twice"):
        parse(text)


def test_merge_keys_work() -> None:
    text = "base: &base {lr: 1, eps: 2}\nother:\n  <<: *base\n  eps: 3\n"
    assert parse(text)["other"] == {"lr": 1, "eps": 3}


def test_reason_names_line_and_column() -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        parse("a: 1\nb: [1\n")
    assert reason(caught.value).endswith("(line 3, column 1)")


def test_python_objects_are_refused() -> None:
    with pytest.raises(yaml.YAMLError):
        parse("!!python/object/apply:os.getcwd []")


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc.-_", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(_VALUES)
def test_dump_and_inline_are_read_back(value: object) -> None:
    assert parse(dump(value)) == value
    assert parse(inline(value)) == value
    assert "\n" not in inline(value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a:\n\tb: 1\n", "indent with spaces: YAML takes no tab there"),
        ("a: >\n\ttext\n", "indent with spaces"),
        ("a: 1\n  b: 2\n", "keys of one section begin in the same column"),
        ("a: b: c\n", "a text that holds a colon and a space needs quotes"),
        ("a 1\nb: 2\n", "each with a colon and a space behind it"),
        ("a:\n   b: 1\n  c: 2\n", "give the line the indentation of those beside it"),
        ("a: 1\n- b\n", "give the line the indentation of those beside it"),
        ("a: - b\n", "give the line the indentation of those beside it"),
        ("a: [1,\nb: 2\n", "close the bracket that is opened in line 1"),
        ("x: 1\na: {b: 1\n", "close the bracket that is opened in line 2"),
        ("a: [\n", "close the bracket"),
        ("a: 'b\nc: 1\n", "close the quote that is opened in line 1"),
        ("a: 'it's'\n", "a quote inside single quotes is doubled"),
        ("a: @b\n", "put quotes around a text that begins with @"),
        ("a: *b\n", "put quotes around a text that begins with & or *"),
        ("a: !b c\n", "put quotes around a text that begins with !"),
        ("a: {{ b }}\n", "put quotes around a text that begins with { or ["),
        ('a: "\\d+"\n', "use single quotes"),
        ("a: 1\na: 2\n", "keep one of the two"),
        ("a: 1\n---\nb: 2\n", "one recipe a file"),
        ("a: \x01\n", "take out the control character"),
        ("a: |b\n", "write the text of | or > in the lines below it"),
    ],
)
def test_the_remedy_says_what_yaml_wants(text: str, wanted: str) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        parse(text)
    assert wanted in remedy(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0o17", 15), ("017", "017"), ("0x1F", 31), ("1_000", "1_000"), ("+12", 12), ("0", 0), ("0o8", "0o8")],
)
def test_integers_are_those_of_the_core_schema(text: str, value: object) -> None:
    found = parse(f"seed: {text}")["seed"]
    assert (found, type(found)) == (value, type(value))
